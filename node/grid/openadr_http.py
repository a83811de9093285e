"""A VTN over HTTPS: tokens, pages, and every way in which a server can fail, in words.

Answers are read as they come, up to a bound, and uncompressed, so that none grows on this machine. Redirects are not
followed: the token is for this server alone.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from ..rules.asked import words
from .openadr_config import good_url
from .openadr_events import OddError, parsed

ANSWER_S: Final = 20.0
"""For one answer, all of it: a page takes a server well under a second, and a bad mobile link some."""
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""A page of 50 events, each with eight days of prices in five-minute steps, has some 3.5 MB if it is written without care."""
LONG_BYTES: Final = 64 * 1024
"""What is longer is read in a thread: a megabyte of JSON takes some ten milliseconds."""
PAGE: Final = 50
"""The most that the standard lets one ask for."""
TOKEN_S_MAX: Final = 3600.0
"""A token is renewed after an hour, however long it is said to last."""
TOKEN_EARLY_S: Final = 30.0
SECRET_BYTES_MAX: Final = 4096
"""As the schema."""
SCOPES: Final = "read_targets read_ven_objects write_reports write_vens"
"""What a VEN asks for; what it is given is the server's to say."""

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every URL


class VtnError(Exception):
    """Why the VTN did not do what it was asked, in words for the owner."""

    def __init__(self, why: str, status: int = 0, retry_s: float = 0.0) -> None:
        super().__init__(why)
        self.status = status
        self.retry_s = retry_s
        """Not to be asked again before, if it said so."""


class Vtn:
    """One server, spoken to as one client of it. Every call raises `VtnError` for whatever goes wrong."""

    def __init__(self, http: httpx.AsyncClient, url: str, client_id: str, secret: Path, token_url: str = "") -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._client_id = client_id
        self._secret = secret
        self._token_url = token_url
        self._token = ""
        self._good_until_s = 0.0
        self.date_ms: float | None = None
        """The server's own time, when it last answered; None if it did not say."""

    async def pages(self, path: str, query: Mapping[str, Any], most: int) -> list[Any]:
        """All objects of a list, page by page."""
        found: list[Any] = []
        while True:
            page = await self.call("GET", path, {**query, "skip": len(found), "limit": PAGE})
            if not isinstance(page, list) or len(page) > PAGE:
                raise VtnError(f"it answers {path} with no list of at most {PAGE}")
            found += page
            if len(page) < PAGE:
                return found
            if len(found) >= most:
                raise VtnError(f"it has more than {most} objects at {path}")

    async def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: object = None) -> Any:
        """The answer's JSON. A token that is refused is renewed, once."""
        for attempt in (1, 2):
            token = await self.authorised()
            headers = {"Authorization": f"Bearer {token}"}
            try:
                return await self._ask(method, self._url + path, headers=headers, params=query, json=body)
            except VtnError as error:
                if error.status != 401 or attempt == 2:
                    raise
                self._token = ""
        raise AssertionError("unreachable")

    async def authorised(self) -> str:
        """A token that holds, as far as is known."""
        if self._token and trio.current_time() < self._good_until_s:
            return self._token
        where = self._token_url or await self._token_place()
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": await trio.to_thread.run_sync(self._read_secret),
            "scope": SCOPES,
        }
        try:
            given = await self._ask("POST", where, data=form)
        except VtnError as error:
            raise VtnError(f"no token: {error}", error.status, error.retry_s) from None
        token = given.get("access_token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not 0 < len(token) <= 4096 or not token.isascii() or not token.isprintable():
            raise VtnError("no token: what it gives is none")
        lasts = given.get("expires_in")
        lasts_s = float(lasts) if isinstance(lasts, int) and 0 < lasts < TOKEN_S_MAX else TOKEN_S_MAX
        self._token = token
        self._good_until_s = trio.current_time() + max(lasts_s / 2, lasts_s - TOKEN_EARLY_S)
        return token

    async def _token_place(self) -> str:
        said = await self._ask("GET", self._url + "/auth/server")
        where = said.get("tokenURL") if isinstance(said, dict) else None
        if not isinstance(where, str) or not good_url(where):
            raise VtnError("it names no place for tokens that is https://")
        return where

    def _read_secret(self) -> str:
        try:
            with self._secret.open("rb") as stream:
                secret = stream.read(SECRET_BYTES_MAX + 1).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise VtnError(f"the file {self._secret} with its secret cannot be read: {why}") from None
        if not 0 < len(secret) <= SECRET_BYTES_MAX:
            raise VtnError(f"the file {self._secret} holds no secret")
        return secret

    async def _ask(self, method: str, url: str, **what: Any) -> Any:
        """One request, one answer. Raises `VtnError`."""
        try:
            with trio.fail_after(ANSWER_S):
                async with self._http.stream(method, url, **what) as answer:
                    body = await _body(answer)
                    self.date_ms = _date_ms(answer.headers.get("Date", ""))
                    if answer.status_code in (200, 201):
                        return await trio.to_thread.run_sync(parsed, body) if len(body) > LONG_BYTES else parsed(body)
                    raise VtnError(_refusal(answer.status_code, body), answer.status_code, _retry_s(answer.headers))
        except trio.TooSlowError:
            raise VtnError(f"it does not answer in {ANSWER_S:g} s") from None
        except httpx.InvalidURL:
            raise VtnError(f"{words(url)} is no address") from None
        except httpx.HTTPError as error:
            raise VtnError(_why(error)) from None
        except OddError as error:
            raise VtnError(str(error)) from None


@asynccontextmanager
async def client(ca: Path | None) -> AsyncIterator[httpx.AsyncClient]:
    """What speaks to one VTN, its certificate checked against the machine's authorities, or against `ca` alone.

    Raises `VtnError` if that file is no certificate.
    """
    try:
        trusted = await trio.to_thread.run_sync(lambda: ssl.create_default_context(cafile=str(ca) if ca else None))
    except (OSError, ssl.SSLError) as error:
        raise VtnError(f"{ca} holds no certificate: {getattr(error, 'strerror', None) or error}") from None
    headers = {"User-Agent": "fallow", "Accept": "application/json", "Accept-Encoding": "identity"}
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1)
    async with httpx.AsyncClient(
        verify=trusted, timeout=None, follow_redirects=False, trust_env=False, headers=headers, limits=limits
    ) as http:
        yield http


async def _body(answer: httpx.Response) -> bytes:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise VtnError("it packs its answer, though it was asked not to")
    body = bytearray()
    with trio.CancelScope() as enough:  # httpx leaves its generators open where one only stops reading
        async for part in answer.aiter_raw():
            body += part
            if len(body) > ANSWER_BYTES_MAX:
                body.clear()
                enough.cancel()
    if enough.cancel_called:
        raise VtnError(f"its answer has more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _refusal(status: int, body: bytes) -> str:
    """A status, and what the server says of it, if it says it as the standard has it (`problem`, `authError`)."""
    try:
        said = parsed(body)
    except OddError:
        said = None
    texts = (
        [said.get(name) for name in ("title", "detail", "error", "error_description")] if isinstance(said, dict) else []
    )
    why = "; ".join(words(text) for text in texts if isinstance(text, str) and text)
    return f"it answers with status {status}" + (f" ({why})" if why else "")


def _why(error: httpx.HTTPError) -> str:
    """What is behind it: httpx wraps what httpcore wraps what the system says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate does not hold: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
            return f"it cannot be reached: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.ConnectError():
            return f"it cannot be reached: {words(error) or 'the connection fails'}"
        case httpx.RemoteProtocolError() | httpx.DecodingError():
            return f"it does not speak HTTP: {words(error)}"
        case _:
            return f"the connection to it broke: {words(error) or type(error).__name__}"


def _date_ms(written: str) -> float | None:
    try:
        return parsedate_to_datetime(written).timestamp() * 1000
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_s(headers: httpx.Headers) -> float:
    written = headers.get("Retry-After", "")
    return float(written) if written.isascii() and written.isdigit() and len(written) < 7 else 0.0
