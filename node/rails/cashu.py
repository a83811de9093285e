"""Cashu: ecash of a mint, paid in tokens that only the payee's key can spend.

What a mint is asked to sign is on disk before it is asked, so that a crash between its answer and ours loses nothing: it gives
the same answer again (NUT-09). Amounts here are in the mint's unit; `ucr_per_unit` is what both sides agreed one is worth.
"""

from __future__ import annotations

import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from coincurve import PrivateKey

from ...protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ...protocol.means import Means
from ..store import BUSY_S
from ..transaction import transaction
from .cashu_crypto import Blinded, amounts_of, blinded, check_dleq, check_token, hash_to_curve, lock_of, locked, witness
from .rail import Invoice, Taken, payment_id, read_means

ASK_S: Final = 20.0
"""For a mint's answer."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
TOKENS_MAX: Final = 256
"""In one payment: twice as many as there are powers of two in any amount, and again."""
_NOT_THE_MINTS: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""What a proxy says in the mint's stead, as it does by 502 or 504: the mint may have done what was asked."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS proofs (
    secret TEXT PRIMARY KEY, amount INTEGER NOT NULL, keyset TEXT NOT NULL, signature TEXT NOT NULL,
    spent TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL, outputs TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS paid (reference TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Output:
    """One token that a request asks for."""

    amount: int
    blinded: Blinded
    ours: bool
    """Kept by us; else given away as means."""


class Cashu:
    """One party's purse at one mint. `key` spends what is locked to this party."""

    name = "cashu"

    def __init__(self, path: Path, mint: str, key: bytes, ucr_per_unit: int) -> None:
        self._mint = mint.rstrip("/")
        self._key = PrivateKey(key)
        self._ucr_per_unit = ucr_per_unit
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            self._db.execute(setting)
        self._db.executescript(_SCHEMA)
        self._keyset = ""
        self._fee_ppk = 0
        self._keys: dict[str, dict[int, str]] = {}

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    @property
    def address(self) -> str:
        """The key to which payments are locked."""
        return self._key.public_key.format().hex()

    @property
    def balance(self) -> int:
        """In the mint's unit."""
        return int(self._db.execute("SELECT coalesce(sum(amount), 0) FROM proofs WHERE spent = ''").fetchone()[0])

    def fill(self, amount: int, quote: str) -> None:
        """The mint's quote, paid by whoever, is in the purse."""
        outputs = [Output(each, blinded(), True) for each in amounts_of(amount)]
        self._request(f"mint {quote}", "/v1/mint/bolt11", {"quote": quote}, outputs, ())

    def quote(self, amount: int) -> str:
        """What is to be paid, by Lightning, for so much ecash."""
        return str(self._ask("/v1/mint/quote/bolt11", {"amount": amount, "unit": "sat"})["quote"])

    def pay(self, invoice: Invoice, *, until_s: int = 0) -> bytes:
        """In tokens locked to the payee's key. With `until_s` they are a deposit: from then on they are ours again if the payee
        has not taken them."""
        if row := self._db.execute("SELECT means FROM paid WHERE reference = ?", (invoice.reference,)).fetchone():
            return bytes(row[0])
        amount, id = -(-invoice.ucr // self._ucr_per_unit), f"pay {invoice.reference}"
        if not self._db.execute("SELECT 1 FROM requests WHERE id = ?", (id,)).fetchone():
            inputs = self._enough(amount)
            change = sum(each["amount"] for each in inputs) - amount - self._fee(len(inputs))
            lock = (invoice.address, until_s, self.address)
            outputs = [Output(each, blinded(locked(*lock)), False) for each in amounts_of(amount)]
            outputs += [Output(each, blinded(), True) for each in amounts_of(change)]
            given = self._request(id, "/v1/swap", {"inputs": inputs}, outputs, [each["secret"] for each in inputs])
        else:
            given = self._finish(id)
        body = json.dumps({"mint": self._mint, "proofs": given}).encode()
        means = Means(self.name, invoice.payer, invoice.reference, amount * self._ucr_per_unit, body).encode()
        self._db.execute("INSERT OR IGNORE INTO paid VALUES (?, ?)", (invoice.reference, means))
        return means

    def take(self, means: bytes) -> Taken:
        """Swapped at the mint for tokens of our own: from then on nobody else can spend them."""
        found = read_means(means, self.name)
        proofs = self._locked_to_us(found.body)
        id, amount = _id_of(proofs), sum(each["amount"] for each in proofs)
        if amount * self._ucr_per_unit != found.ucr:
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens come to another amount than is said.")
        fee = self._fee(len(proofs))
        if fee >= amount:
            raise RemoteProtocolError(Code.BAD_RECORD, f"The mint would keep all of it: its fee is {fee}.")
        taken = Taken(id, found.payer, found.ucr, fee * self._ucr_per_unit, found.reference)
        row = self._db.execute("SELECT done FROM requests WHERE id = ?", (id.hex(),)).fetchone()
        if row and row[0]:
            return taken
        if row:
            self._finish(id.hex())
            return taken
        inputs = [{**each, "witness": witness(each["secret"], self._key)} for each in proofs]
        outputs = [Output(each, blinded(), True) for each in amounts_of(amount - fee)]
        self._request(id.hex(), "/v1/swap", {"inputs": inputs}, outputs, ())
        return taken

    def locked_until_s(self, means: bytes) -> int:
        """Of a deposit to us, until when nobody but us can take it; 0: for ever. Raises as `take` does, and for one that is
        spent already, or of which the mint's proof (DLEQ) is missing: a mint says of tokens that it never signed, too, that
        nobody has spent them."""
        found = read_means(means, self.name)
        proofs = self._locked_to_us(found.body)
        if sum(each["amount"] for each in proofs) * self._ucr_per_unit != found.ucr:
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens come to another amount than is said.")
        for each in json.loads(found.body)["proofs"]:
            key, proof = self._keys_of(str(each["id"])).get(int(each["amount"])), each.get("dleq")
            if key is None or not isinstance(proof, dict):
                raise RemoteProtocolError(Code.BAD_SIGNATURE, "Nothing shows that the mint has signed the tokens.")
            check_token(str(each["secret"]), str(each["C"]), proof, key)
        points = [hash_to_curve(each["secret"].encode()).format().hex() for each in proofs]
        states = self._ask("/v1/checkstate", {"Ys": points}).get("states", [])
        if len(states) != len(points) or any(each.get("state") != "UNSPENT" for each in states):
            raise RemoteProtocolError(Code.BAD_RECORD, "The deposit is spent.")
        return min((until_s for each in proofs if (until_s := lock_of(each["secret"])[1])), default=0)

    def _locked_to_us(self, body: bytes) -> list[dict[str, Any]]:
        try:
            content = json.loads(body)
            proofs: list[dict[str, Any]] = [
                {"amount": int(p["amount"]), "id": str(p["id"]), "secret": str(p["secret"]), "C": str(p["C"])}
                for p in content["proofs"]
            ]
            mint = content["mint"]
        except (ValueError, TypeError, KeyError):
            raise RemoteProtocolError(Code.BAD_ENCODING, "These are no tokens of Cashu.") from None
        if mint != self._mint:
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens are of another mint than was agreed on.")
        if not 0 < len(proofs) <= TOKENS_MAX or len({each["secret"] for each in proofs}) != len(proofs):
            raise RemoteProtocolError(Code.BAD_RECORD, f"A payment has 1 to {TOKENS_MAX} tokens, each once.")
        if any(lock_of(each["secret"])[0] != self.address for each in proofs):
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens are not locked to our key: others could spend them.")
        return proofs

    def _enough(self, amount: int) -> list[dict[str, Any]]:
        """Tokens of ours for so much, and for the mint's fee for them. Raises `Refused(credit_exhausted)`."""
        rows = self._db.execute(
            "SELECT amount, keyset, secret, signature FROM proofs WHERE spent = '' ORDER BY amount DESC, secret"
        ).fetchall()
        chosen: list[dict[str, Any]] = []
        for each, keyset, secret, signature in rows:
            if sum(one["amount"] for one in chosen) >= amount + self._fee(len(chosen)):
                break
            chosen.append({"amount": each, "id": keyset, "secret": secret, "C": signature})
        if sum(one["amount"] for one in chosen) < (whole := amount + self._fee(len(chosen))):
            message = f"{whole} are to be paid with the mint's fee, and {self.balance} are in the purse."
            raise Refused(Code.CREDIT_EXHAUSTED, message)
        return chosen

    def _fee(self, inputs: int) -> int:
        """What the mint keeps of a swap of so many tokens (NUT-02)."""
        self._load_keys()
        return -(-inputs * self._fee_ppk // 1000)

    def _request(
        self, id: str, path: str, body: dict[str, Any], outputs: Sequence[Output], spent: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The request is on disk with the secrets of what it asks for, its inputs are set aside, and then it is sent."""
        self._load_keys()
        asked = [{"amount": each.amount, "id": self._keyset, "B_": each.blinded.point} for each in outputs]
        kept = [
            [each.amount, self._keyset, each.blinded.secret, each.blinded.factor.hex(), each.ours] for each in outputs
        ]
        with transaction(self._db):
            row = (id, path, json.dumps({**body, "outputs": asked}), json.dumps(kept))
            self._db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, 0)", row)
            self._db.executemany("UPDATE proofs SET spent = ? WHERE secret = ?", [(id, secret) for secret in spent])
        return self._finish(id)

    def _finish(self, id: str) -> list[dict[str, Any]]:
        """What the request asked for is ours, or comes back to be given away. Asked again after a crash, the mint says what
        it has said."""
        path, body, outputs, done = self._db.execute(
            "SELECT path, body, outputs, done FROM requests WHERE id = ?", (id,)
        ).fetchone()
        asked, kept = json.loads(body), json.loads(outputs)
        restored = self._ask("/v1/restore", {"outputs": asked["outputs"]})
        answer = restored if len(restored.get("signatures", [])) == len(kept) else self._sent(id, path, asked)
        proofs = []
        for signature, (amount, keyset, secret, factor, ours) in zip(answer["signatures"], kept, strict=True):
            hidden, key = Blinded(secret, bytes.fromhex(factor)), self._keys_of(keyset)[amount]
            if proof := signature.get("dleq"):  # of mints that give one
                check_dleq(str(proof.get("e")), str(proof.get("s")), hidden.point, signature["C_"], key)
            opened = hidden.open(signature["C_"], key)
            whole = {"amount": amount, "id": keyset, "secret": secret, "C": opened}
            if proof and not ours:  # whoever gets the token can see by itself that the mint has signed it
                whole["dleq"] = {"e": proof["e"], "s": proof["s"], "r": factor}
            proofs.append((whole, ours))
        if not done:
            with transaction(self._db):
                own = [(p["secret"], p["amount"], p["id"], p["C"]) for p, ours in proofs if ours]
                self._db.executemany("INSERT OR IGNORE INTO proofs VALUES (?, ?, ?, ?, '')", own)
                self._db.execute("UPDATE requests SET done = 1 WHERE id = ?", (id,))
        return [proof for proof, ours in proofs if not ours]

    def _sent(self, id: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The mint's answer. Refused by it, nothing was signed: the inputs are free again, and the mint's keys, which it may
        have changed, are asked for anew."""
        try:
            return self._ask(path, asked)
        except RemoteProtocolError:
            self._keyset = ""
            with transaction(self._db):
                self._db.execute("UPDATE proofs SET spent = '' WHERE spent = ?", (id,))
                self._db.execute("DELETE FROM requests WHERE id = ?", (id,))
            raise

    def _load_keys(self) -> None:
        if not self._keyset:
            for keyset in self._ask("/v1/keys")["keysets"]:
                self._keys[keyset["id"]] = {int(amount): key for amount, key in keyset["keys"].items()}
            for keyset in self._ask("/v1/keysets")["keysets"]:
                if keyset["unit"] == "sat" and keyset["active"]:
                    self._keyset, self._fee_ppk = keyset["id"], int(keyset.get("input_fee_ppk", 0))

    def _keys_of(self, keyset: str) -> dict[int, str]:
        """By amount; none of a keyset that the mint does not have. It signs with one, and stands by those before it."""
        self._load_keys()
        if keyset not in self._keys and re.fullmatch(r"[0-9a-f]{16,66}", keyset):
            for each in self._ask(f"/v1/keys/{keyset}").get("keysets", []):
                self._keys[each["id"]] = {int(amount): key for amount, key in each["keys"].items()}
        return self._keys.get(keyset, {})

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The mint's answer. Raises `NetworkError` if there is none, so that nobody knows what the mint has done, and
        `RemoteProtocolError` if it is a no."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._mint + path, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                found = json.loads(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(1024).decode(errors="replace")
            if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in _NOT_THE_MINTS:
                message = f"The mint {self._mint} did not answer: {error.code} {detail[:200]}."
                raise NetworkError(Code.PEER_UNREACHABLE, message) from None
            raise RemoteProtocolError(Code.BAD_RECORD, f"The mint refused: {detail[:200]}") from None
        except (OSError, ValueError, HTTPException) as error:
            raise NetworkError(Code.PEER_UNREACHABLE, f"The mint {self._mint} did not answer: {error}.") from None
        if not isinstance(found, dict):
            raise NetworkError(
                Code.PEER_UNREACHABLE, f"The mint {self._mint} answered with something else than was asked."
            )
        return found


def _id_of(proofs: Sequence[dict[str, Any]]) -> bytes:
    """The payment of these tokens. With other amounts it is another one, which the mint refuses."""
    points = (hash_to_curve(each["secret"].encode()).format().hex() for each in proofs)
    said = sorted(f"{point} {each['amount']} {each['id']}" for point, each in zip(points, proofs, strict=True))
    return payment_id(Cashu.name, "\n".join(said).encode())
