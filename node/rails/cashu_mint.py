"""A Cashu mint as a wallet sees it, over HTTP: its keys and its fee (NUT-01, NUT-02), what it says of tokens (NUT-07, NUT-12),
and whatever else it is asked. Nothing that it answers is trusted to be as the protocol has it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final

from ...protocol.errors import Code, NetworkError, RemoteProtocolError
from .cashu_crypto import check_token
from .cashu_means import HEX

ASK_S: Final = 20.0
"""For a mint's answer."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
_NOT_THE_MINTS: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""What a proxy says in the mint's stead, as it does by 502 or 504: the mint may have done what was asked."""
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of reading an answer that is not as the protocol has it."""


class Mint:
    """One mint. Its keys are asked for when they are first needed, and kept."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._keyset = ""
        self._fee_ppk = 0
        self._keys: dict[str, dict[int, str]] = {}

    @property
    def keyset(self) -> str:
        """By its id, the one that the mint signs with. Raises `NetworkError`."""
        self._load_keys()
        return self._keyset

    def forget_keyset(self) -> None:
        """The mint, which may have changed it, is asked for it anew when it is next needed."""
        self._keyset = ""

    def fee(self, inputs: int) -> int:
        """What the mint keeps of a swap of so many tokens (NUT-02)."""
        self._load_keys()
        return -(-inputs * self._fee_ppk // 1000)

    def keys_of(self, keyset: str) -> dict[int, str]:
        """By amount; none of a keyset that the mint does not have. It signs with one, and stands by those before it."""
        self._load_keys()
        if keyset not in self._keys and HEX.fullmatch(keyset):
            with self.reading():
                self._learn(self.ask(f"/v1/keys/{keyset}").get("keysets", []))
        return self._keys.get(keyset, {})

    def states(self, points: Sequence[str]) -> list[str]:
        """Of the tokens that it knows by these points: UNSPENT, PENDING or SPENT (NUT-07)."""
        with self.reading():
            states = [str(each["state"]) for each in self.ask("/v1/checkstate", {"Ys": points})["states"]]
            if len(states) != len(points):
                raise ValueError("not one state for each token")
        return states

    def check_signed(self, tokens: Sequence[dict[str, Any]]) -> None:
        """Raises `RemoteProtocolError(bad_signature)` unless the mint has signed each, by the proof that stands in it."""
        with self.reading():
            for each in tokens:
                key, proof = self.keys_of(str(each["id"])).get(int(each["amount"])), each.get("dleq")
                if key is None or not isinstance(proof, dict):
                    raise RemoteProtocolError(Code.BAD_SIGNATURE, "Nothing shows that the mint has signed the tokens.")
                check_token(str(each["secret"]), str(each["C"]), proof, key)

    def restored(self, outputs: list[Any]) -> dict[str, Any] | None:
        """What the mint has answered before to what asked for these outputs (NUT-09); None if it was not asked yet, or has
        refused."""
        with self.reading():
            restored = self.ask("/v1/restore", {"outputs": outputs})
            if (count := len(restored.get("signatures", []))) not in (0, len(outputs)):
                raise ValueError("a part of an answer")
        return restored if count else None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What the mint has answered, if it is as the protocol has it. Raises `NetworkError`, for then it is none."""
        try:
            yield
        except _MALFORMED as error:
            message = f"The mint {self.address} answered with something else than was asked ({type(error).__name__})."
            raise NetworkError(Code.PEER_UNREACHABLE, message) from None

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The mint's answer. Raises `NetworkError` if there is none, so that nobody knows what the mint has done, and
        `RemoteProtocolError` if it is a no."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                found = json.loads(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(1024).decode(errors="replace")
            if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in _NOT_THE_MINTS:
                message = f"The mint {self.address} did not answer: {error.code} {detail[:200]}."
                raise NetworkError(Code.PEER_UNREACHABLE, message) from None
            raise RemoteProtocolError(Code.BAD_RECORD, f"The mint refused: {detail[:200]}") from None
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            raise NetworkError(Code.PEER_UNREACHABLE, f"The mint {self.address} did not answer: {error}.") from None
        if not isinstance(found, dict):
            raise NetworkError(
                Code.PEER_UNREACHABLE, f"The mint {self.address} answered with something else than was asked."
            )
        return found

    def _load_keys(self) -> None:
        if self._keyset:
            return
        with self.reading():
            self._learn(self.ask("/v1/keys")["keysets"])
            for keyset in self.ask("/v1/keysets")["keysets"]:
                if keyset["unit"] == "sat" and keyset["active"]:
                    self._keyset, self._fee_ppk = str(keyset["id"]), int(keyset.get("input_fee_ppk", 0))

    def _learn(self, keysets: Sequence[dict[str, Any]]) -> None:
        for each in keysets:
            self._keys[each["id"]] = {int(amount): str(key) for amount, key in each["keys"].items()}
