"""A VTN on the wire, in the test's own process: every message of it, and every one to it, holds against the 3.1.0 schema.

It stands in for a real one, which is not to be had here: what it proves is our side, and the standard's forms.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .schema import check

CLIENT, SECRET = "ven_client", "ven secret"
CREATED = "2026-11-01T00:00:00Z"


@dataclass
class Vtn:
    """What it has, and how it fails. `events` are requests of the business logic; each has an id and a time of its own."""

    programs: list[dict[str, Any]] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    vens: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """`METHOD /path?query` of every request."""
    tokens: int = 0
    lasts_s: int = 3600
    date_s: float | None = None
    """Its clock; None: this machine's."""
    refuses: dict[str, int] = field(default_factory=dict)
    """Statuses, by the beginning of a path."""
    fault: str = ""
    """`slow`, `huge`, `nonsense`, `packed`, `html`, `redirect`."""
    retry_s: str = ""
    """What it says in `Retry-After`."""
    revoked: set[str] = field(default_factory=set)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/openadr3/3.1.0"

    def put(self, id_: str, intervals: list[dict[str, Any]], program: str = "p1", **more: Any) -> None:
        """The event is there, or is another from now on."""
        version = int(self.events[id_]["modificationDateTime"][17:19]) + 1 if id_ in self.events else 0
        event = {
            "id": id_, "createdDateTime": CREATED, "modificationDateTime": f"2026-11-01T00:00:{version:02}Z",
            "objectType": "EVENT", "programID": program, "intervals": intervals, **more,
        }  # fmt: skip
        check("event", event)
        self.events[id_] = event

    async def serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while (request := await _request(connection, stream)) is not None:
                head, body = request
                await self._respond(connection, stream, head, body)
                if connection.our_state is h11.MUST_CLOSE:
                    break
                connection.start_next_cycle()
            await stream.aclose()

    async def _respond(
        self, connection: h11.Connection, stream: trio.abc.Stream, head: h11.Request, body: bytes
    ) -> None:
        path = head.target.decode()
        self.asked.append(f"{head.method.decode()} {path}")
        status, value = self._answer(head, path.removeprefix("/openadr3/3.1.0"), body)
        content, extra = json.dumps(value).encode(), list[tuple[str, str]]()
        match self.fault:
            case "slow":
                await trio.sleep_forever()
            case "huge":
                content = b"[" + b" " * (5 * 1024 * 1024) + b"]"
            case "nonsense":
                content = b'[{"id": 7}, null, {"id": "x", "intervals": "none"}, [[[['
            case "html":
                content = b"<html>under maintenance</html>"
            case "packed":
                extra = [("Content-Encoding", "gzip")]
            case "redirect":
                status, extra = 302, [("Location", "http://127.0.0.1:1/")]
        if self.retry_s:
            extra.append(("Retry-After", self.retry_s))
        headers = [
            ("Content-Type", "application/json"), ("Content-Length", str(len(content))), *extra,
            ("Date", formatdate(self.date_s, usegmt=True)),
        ]  # fmt: skip
        out = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        await stream.send_all(out + (connection.send(h11.Data(data=content)) or b""))
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")

    def _answer(self, head: h11.Request, target: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        for path, status in self.refuses.items():
            if parts.path.startswith(path):
                return self._problem(status)
        if parts.path == "/auth/server":
            return self._said(200, "authServerInfo", {"tokenURL": self.url + "/auth/token"})
        if parts.path == "/auth/token":
            return self._token(body)
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token != f"token-{self.tokens}" or token in self.revoked:
            return self._problem(401)
        match head.method.decode(), parts.path.strip("/").split("/"):
            case "GET", ["programs"]:
                return self._page("program", self.programs, query)
            case "GET", ["events"]:
                wanted = query.get("programID", [])
                found = [each for each in self.events.values() if not wanted or each["programID"] in wanted]
                return self._page("event", found, query)
            case "GET", ["events", id_]:
                return self._said(200, "event", self.events[id_]) if id_ in self.events else self._problem(404)
            case "GET", ["vens"]:
                return self._page(
                    "ven", [each for each in self.vens if [each["venName"]] == query.get("venName")], query
                )
            case "POST", ["vens"]:
                return self._enter(json.loads(body))
            case "POST", ["reports"]:
                asked = json.loads(body)
                check("reportRequest", asked)
                made = self._made("REPORT", f"r{len(self.reports)}") | asked | {"clientID": CLIENT}
                self.reports.append(made)
                return self._said(201, "report", made)
        return self._problem(404)

    def _token(self, body: bytes) -> tuple[int, Any]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        check("clientCredentialRequest", form)
        if (form["client_id"], form["client_secret"]) != (CLIENT, SECRET):
            return self._said(401, "authError", {"error": "invalid_client", "error_description": "no such client"})
        self.tokens += 1
        given = {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": self.lasts_s}
        return self._said(200, "clientCredentialResponse", given)

    def _enter(self, asked: dict[str, Any]) -> tuple[int, Any]:
        check("VenVenRequest", asked)
        if any(each["venName"] == asked["venName"] for each in self.vens):
            return self._problem(409)
        made = self._made("VEN", f"v{len(self.vens)}")
        ven = made | {"objectType": "BL_VEN_REQUEST", "clientID": CLIENT, "venName": asked["venName"]}
        self.vens.append(ven)
        # Its schema wants an objectType to be VEN and BL_VEN_REQUEST at the same time: nothing can be both.
        return 201, ven

    def _page(self, kind: str, found: list[Any], query: dict[str, list[str]]) -> tuple[int, Any]:
        skip, limit = int(query["skip"][0]), int(query["limit"][0])
        assert limit <= 50
        page = found[skip : skip + limit]
        for each in page if kind != "ven" else ():
            check(kind, each)
        return 200, page

    def _made(self, kind: str, id_: str) -> dict[str, Any]:
        return {"id": id_, "createdDateTime": CREATED, "modificationDateTime": CREATED, "objectType": kind}

    def _problem(self, status: int) -> tuple[int, Any]:
        return self._said(status, "problem", {"title": "no", "status": status})

    def _said(self, status: int, kind: str, value: Any) -> tuple[int, Any]:
        check(kind, value)
        return status, value


def program(id_: str = "p1", name: str = "Shed", **more: Any) -> dict[str, Any]:
    return {
        "id": id_, "createdDateTime": CREATED, "modificationDateTime": CREATED, "objectType": "PROGRAM",
        "programName": name, **more,
    }  # fmt: skip


def interval(*payloads: tuple[str, Any], number: int = 0, **period: str) -> dict[str, Any]:
    """`interval(("SIMPLE", 2), duration="PT1H")`."""
    made: dict[str, Any] = {"id": number, "payloads": [{"type": kind, "values": [value]} for kind, value in payloads]}
    return made | ({"intervalPeriod": period} if period else {})


@asynccontextmanager
async def serving(vtn: Vtn, tls: ssl.SSLContext | None = None) -> AsyncIterator[Vtn]:
    """The VTN answers on loopback."""

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
        with suppress(trio.BrokenResourceError):
            await vtn.serve(secured)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        vtn.port, vtn.scheme = listener.socket.getsockname()[1], "https" if tls else "http"
        yield vtn
        nursery.cancel_scope.cancel()


async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> tuple[h11.Request, bytes] | None:
    head: h11.Request | None = None
    body = b""
    while True:
        match event := connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(16384))
            case h11.Request():
                head = event
            case h11.Data(data=part):
                body += part
            case h11.EndOfMessage():
                assert head
                return head, body
            case _:
                return None


def certificate(folder: Path, days: int) -> ssl.SSLContext:
    """A server's context with a certificate of its own, at `folder/ca.pem`, that ends so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vtn")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context
