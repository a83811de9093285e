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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from coincurve import PrivateKey

from ...protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ...protocol.means import Means
from ..private import database
from ..transaction import transaction
from .cashu_crypto import Blinded, amounts_of, blinded, check_dleq, check_token, hash_to_curve, lock_of, locked, witness
from .cashu_means import HEX, content_of, id_of, payment_of, point_of, tokens_of, until_s_of
from .rail import Invoice, Taken, check_paid, in_utc, invoice_id, read_means

ASK_S: Final = 20.0
"""For a mint's answer."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
TOKENS_MAX: Final = 256
"""In one payment: twice as many as there are powers of two in any amount, and again."""
QUOTES_MAX: Final = 16
"""That nobody has paid yet: each is a line, and each is asked for again."""
ASKED_MAX: Final = 64
"""Requests without the mint's answer, each of some hundred kilobytes at most: tokens that the mint never signed cost
nothing, and while it is not there, they cannot be told from others."""
_NOT_THE_MINTS: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""What a proxy says in the mint's stead, as it does by 502 or 504: the mint may have done what was asked."""
_REFUSED_TO_ANOTHER: Final = "The mint refused it to another process of ours just now: try again."
_KEY: Final = re.compile(r"0[23][0-9a-f]{64}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS proofs (
    secret TEXT PRIMARY KEY, amount INTEGER NOT NULL, keyset TEXT NOT NULL, signature TEXT NOT NULL,
    spent TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE IF NOT EXISTS asked (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL, outputs TEXT NOT NULL, payer BLOB NOT NULL,
    reference TEXT NOT NULL, fee INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, fee INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS quotes (id TEXT PRIMARY KEY, amount INTEGER NOT NULL, request TEXT NOT NULL) STRICT;
"""
# `quotes`: what the mint gives tokens for once somebody has paid it. `asked`: until the mint's answer is here; the
# `proofs` that it spends are set aside so long. `done`: what came to us.
_PAID_BEFORE: Final = "pay "
"""In the first form of the purse a payment was known by its reference alone: so it is until it is asked for again."""
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of reading an answer that is not as the protocol has it."""


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
        self._db = database(path)
        for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            self._db.execute(setting)
        self._db.executescript(_SCHEMA)
        _carry_over(self._db)
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
    def terms(self) -> str:
        """The address, the mint and what its unit is worth: who pays at another mint, or counts otherwise, pays nothing."""
        return f"{self.address} {self._mint} {self._ucr_per_unit}"

    @property
    def ucr_per_unit(self) -> int:
        return self._ucr_per_unit

    @property
    def balance(self) -> int:
        """In the mint's unit."""
        return int(self._db.execute("SELECT coalesce(sum(amount), 0) FROM proofs WHERE spent = ''").fetchone()[0])

    def fill(self, amount: int, quote: str) -> None:
        """The mint's quote, paid by whoever, is in the purse."""
        id = f"mint {quote}"
        if self._one("SELECT 1 FROM done WHERE id = ?", id) is None:
            outputs = [Output(each, blinded(), True) for each in amounts_of(amount)]
            self._ask_once(id, "/v1/mint/bolt11", {"quote": quote}, outputs)
        self.drop(quote)

    def quote(self, amount: int) -> str:
        """What is to be paid, by Lightning, for so much ecash: on disk, for `fill`. Raises `Refused(busy)` for one too many."""
        if self._db.execute("SELECT count(*) FROM quotes").fetchone()[0] >= QUOTES_MAX:
            raise Refused(Code.BUSY, f"{QUOTES_MAX} bills of the mint are not paid yet: pay one of them, or wait.")
        with self._reading():
            told = self._ask("/v1/mint/quote/bolt11", {"amount": amount, "unit": "sat"})
            row = (str(told["quote"]), amount, str(told.get("request", "")))
        self._db.execute("INSERT OR REPLACE INTO quotes VALUES (?, ?, ?)", row)
        return row[0]

    def quotes(self) -> list[tuple[str, int, str]]:
        """Quotes that are not in the purse yet: id, amount, and the Lightning invoice by which each is paid."""
        return self._db.execute("SELECT * FROM quotes ORDER BY rowid").fetchall()

    def is_over(self, quote: str, now_s: int) -> bool:
        """Whether the mint says that nobody has paid the quote, nor can any more: a day after its end."""
        with self._reading():
            told = self._ask(f"/v1/mint/quote/bolt11/{quote}")
            ends_s = int(told.get("expiry") or 0)
            return told.get("state") == "UNPAID" and bool(ends_s) and ends_s + 86_400 < now_s

    def drop(self, quote: str) -> None:
        """The quote is not waited for any more."""
        self._db.execute("DELETE FROM quotes WHERE id = ?", (quote,))

    def pay(self, invoice: Invoice, *, until_s: int = 0) -> bytes:
        """In tokens locked to the payee's key. With `until_s` they are a deposit: from then on they are ours again if the payee
        has not taken them (`take_back`). An address with terms has to have ours."""
        address, *terms = invoice.address.split(" ")
        if terms and terms != self.terms.split(" ")[1:]:
            message = f"The payee takes ecash of {' at '.join(terms)} ucr a unit, and this purse is of {self._mint}"
            raise Refused(Code.BAD_TERMS, f"{message} at {self._ucr_per_unit}: nothing was paid.")
        invoice = replace(invoice, address=address)
        amount, id = -(-invoice.ucr // self._ucr_per_unit), invoice_id(self.name, invoice)
        self._adopt(id, invoice)
        means = self._paid(id) or self._pay(id, invoice, amount, until_s)
        check_paid(means, invoice, amount * self._ucr_per_unit)
        locks = {lock_of(each["secret"]) for each in json.loads(read_means(means, self.name).body)["proofs"]}
        if locks != {(invoice.address, until_s)}:
            message = (
                f"{invoice.reference!r} was paid before, and locked otherwise: give another payment another reference."
            )
            raise Refused(Code.BAD_CONFIG, message)
        return means

    def take(self, means: bytes) -> Taken:
        """Swapped at the mint for tokens of our own: from then on nobody else can spend them."""
        found = read_means(means, self.name)
        proofs = self._locked_to_us(found)
        id, amount = id_of(proofs), sum(each["amount"] for each in proofs)
        if (row := self._one("SELECT fee FROM done WHERE id = ?", id.hex())) is None:
            fee = self._fee(len(proofs))
            if fee >= amount:
                raise RemoteProtocolError(Code.BAD_RECORD, f"The mint would keep all of it: its fee is {fee}.")
            inputs = [{**each, "witness": witness(each["secret"], self._key)} for each in proofs]
            outputs = [Output(each, blinded(), True) for each in amounts_of(amount - fee)]
            self._ask_once(id.hex(), "/v1/swap", {"inputs": inputs}, outputs, fee=fee)
            if (row := self._one("SELECT fee FROM done WHERE id = ?", id.hex())) is None:
                raise NetworkError(Code.PEER_UNREACHABLE, _REFUSED_TO_ANOTHER)
        return Taken(id, found.payer, found.ucr, int(row[0]) * self._ucr_per_unit, found.reference)

    def locked_until_s(self, means: bytes) -> int:
        """Of a deposit to us, until when nobody but us can take it; 0: for ever. Raises as `take` does, and for one that is
        spent already, or of which the mint's proof (DLEQ) is missing: a mint says of tokens that it never signed, too, that
        nobody has spent them."""
        found = read_means(means, self.name)
        proofs = self._locked_to_us(found)
        with self._reading():
            for each in json.loads(found.body)["proofs"]:
                key, proof = self._keys_of(str(each["id"])).get(int(each["amount"])), each.get("dleq")
                if key is None or not isinstance(proof, dict):
                    raise RemoteProtocolError(Code.BAD_SIGNATURE, "Nothing shows that the mint has signed the tokens.")
                check_token(str(each["secret"]), str(each["C"]), proof, key)
        if any(state != "UNSPENT" for state in self._states([point_of(each) for each in proofs])):
            raise RemoteProtocolError(Code.BAD_RECORD, "The deposit is spent.")
        return until_s_of(means)

    def tokens(self, means: bytes) -> frozenset[str]:
        """What their mint knows the tokens of a deposit by. Raises as `take` does."""
        return frozenset(point_of(each) for each in self._locked_to_us(read_means(means, self.name)))

    def means_of(self, invoice: Invoice) -> bytes | None:
        """What was paid for it; None if nothing is yet."""
        return self._paid(invoice_id(self.name, invoice))

    def is_asked(self, invoice: Invoice) -> bool:
        """Whether the mint was asked for it, and its answer is not here yet."""
        return self._is_asked(invoice_id(self.name, invoice))

    def worth_ucr(self, means: bytes) -> int:
        """What is left of the tokens once the mint has kept its fee of a swap. Raises `RemoteProtocolError`, `NetworkError`."""
        proofs = tokens_of(means)
        left = sum(int(each["amount"]) for each in proofs) - self._fee(len(proofs))
        return left * self._ucr_per_unit

    def payment_of(self, means: bytes) -> bytes:
        """The payment that these means are once their payee has taken them. Raises `RemoteProtocolError` for no tokens."""
        return payment_of(means)

    def until_s_of(self, means: bytes) -> int:
        """When the first of the tokens may go back to who paid; 0: never. Nobody is asked whether they are any. Raises
        `RemoteProtocolError` for no tokens."""
        return until_s_of(means)

    def has_taken(self, means: bytes) -> bool:
        """Whether these means are ours already."""
        return self._one("SELECT 1 FROM done WHERE id = ?", payment_of(means).hex()) is not None

    def take_back(self, means: bytes, now_s: int) -> int:
        """A deposit of ours whose time is over is in the purse again, so many micro-credits of it, without the mint's fee.
        Again is no change. Raises `Refused`: `locked` before its time, `spent` if its payee has taken it; `NetworkError`."""
        proofs, id = tokens_of(means), f"back {payment_of(means).hex()}"
        until_s, amount = (
            max(lock_of(each["secret"])[1] for each in proofs),
            sum(int(each["amount"]) for each in proofs),
        )
        if (row := self._one("SELECT fee FROM done WHERE id = ?", id)) is None:
            if now_s < until_s:
                raise Refused(Code.LOCKED, f"It is locked until {in_utc(until_s)}. Nothing was done.")
            fee = self._fee(len(proofs))
            if fee >= amount:
                raise Refused(Code.BAD_TERMS, f"The mint would keep all of it: its fee is {fee}.")
            inputs = [{**each, "witness": witness(each["secret"], self._key)} for each in proofs]
            outputs = [Output(each, blinded(), True) for each in amounts_of(amount - fee)]
            try:
                self._ask_once(id, "/v1/swap", {"inputs": inputs}, outputs, fee=fee)
            except RemoteProtocolError:
                if self.is_taken(means):
                    raise Refused(Code.SPENT, "Its payee has taken it.") from None
                raise
            if (row := self._one("SELECT fee FROM done WHERE id = ?", id)) is None:
                raise NetworkError(Code.PEER_UNREACHABLE, _REFUSED_TO_ANOTHER)
        return (amount - int(row[0])) * self._ucr_per_unit

    def is_spent(self, means: bytes) -> bool:
        """Whether the mint says that any of its tokens was spent, by whomever."""
        return any(state == "SPENT" for state in self._states([point_of(each) for each in tokens_of(means)]))

    def is_taken(self, means: bytes) -> bool:
        """Whether a deposit of ours was spent, and not by `take_back`, which is finished if begun. Raises `NetworkError`,
        and `RemoteProtocolError` if the mint does not say."""
        return self._is_others(means, f"back {payment_of(means).hex()}")

    def is_lost(self, means: bytes) -> bool:
        """Whether tokens to us were spent, and not by `take`, which is finished if it was begun. Raises as `is_taken` does."""
        return self._is_others(means, payment_of(means).hex())

    def _is_others(self, means: bytes, id: str) -> bool:
        if not self.is_spent(means):
            return False
        if self._is_asked(id):
            try:
                self._finish(id)
            except RemoteProtocolError:
                if self._is_asked(id):
                    raise
        return self._one("SELECT 1 FROM done WHERE id = ?", id) is None

    def is_back(self, means: bytes) -> bool:
        """Whether `take_back` has put it into the purse."""
        return self._one("SELECT 1 FROM done WHERE id = ?", f"back {payment_of(means).hex()}") is not None

    def _states(self, points: Sequence[str]) -> list[str]:
        with self._reading():
            states = [str(each["state"]) for each in self._ask("/v1/checkstate", {"Ys": points})["states"]]
            if len(states) != len(points):
                raise ValueError("not one state for each token")
        return states

    def _locked_to_us(self, means: Means) -> list[dict[str, Any]]:
        """The tokens of the means, which come to what they say. Raises `RemoteProtocolError`."""
        mint, proofs = content_of(means)
        if mint != self._mint:
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens are of another mint than was agreed on.")
        if not 0 < len(proofs) <= TOKENS_MAX or len({each["secret"] for each in proofs}) != len(proofs):
            raise RemoteProtocolError(Code.BAD_RECORD, f"A payment has 1 to {TOKENS_MAX} tokens, each once.")
        if any(lock_of(each["secret"])[0] != self.address for each in proofs):
            raise RemoteProtocolError(
                Code.BAD_RECORD, "The tokens are not locked to our key alone, as we could spend them."
            )
        if sum(each["amount"] for each in proofs) * self._ucr_per_unit != means.ucr:
            raise RemoteProtocolError(Code.BAD_RECORD, "The tokens come to another amount than is said.")
        return proofs

    def _pay(self, id: str, invoice: Invoice, amount: int, until_s: int) -> bytes:
        """The means are on disk. What a process before this one asked for goes out as it asked for it."""
        if not _KEY.fullmatch(invoice.address):
            raise Refused(Code.BAD_CONFIG, f"{invoice.address[:80]!r} is no key that tokens could be locked to.")
        if not self._is_asked(id):
            inputs = self._enough(amount)
            change = sum(each["amount"] for each in inputs) - amount - self._fee(len(inputs))
            lock = (invoice.address, until_s, self.address)
            outputs = [Output(each, blinded(locked(*lock)), False) for each in amounts_of(amount)]
            outputs += [Output(each, blinded(), True) for each in amounts_of(change)]
            self._keep(id, "/v1/swap", {"inputs": inputs}, outputs, invoice, [each["secret"] for each in inputs])
        self._finish(id)
        if (means := self._paid(id)) is None:
            raise Refused(Code.BUSY, _REFUSED_TO_ANOTHER)
        return means

    def _adopt(self, id: str, invoice: Invoice) -> None:
        """What the purse's first form paid, or asked for, under this reference and locked to this payee, is this payment."""
        before = _PAID_BEFORE + invoice.reference
        if means := self._paid(before):
            found = read_means(means, self.name)
            secrets = [each["secret"] for each in json.loads(found.body)["proofs"]]
            ours = found.payer == invoice.payer
        elif row := self._one("SELECT outputs FROM asked WHERE id = ?", before):
            secrets = [secret for _, _, secret, _, kept in json.loads(row[0]) if not kept]
            ours = True
        else:
            return
        if not ours or {lock_of(secret)[0] for secret in secrets} != {invoice.address}:
            return  # it went to somebody else
        with transaction(self._db):
            self._db.execute("UPDATE OR IGNORE payments SET id = ? WHERE id = ?", (id, before))
            self._db.execute("UPDATE asked SET id = ?, payer = ? WHERE id = ?", (id, invoice.payer, before))
            self._db.execute("UPDATE proofs SET spent = ? WHERE spent = ?", (id, before))

    def _paid(self, id: str) -> bytes | None:
        row = self._one("SELECT means FROM payments WHERE id = ?", id)
        return bytes(row[0]) if row else None

    def _is_asked(self, id: str) -> bool:
        return self._one("SELECT 1 FROM asked WHERE id = ?", id) is not None

    def _one(self, statement: str, id: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(statement, (id,)).fetchone()
        return row

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

    def _make_room(self) -> None:
        """One more may be asked for. Raises `NetworkError` if the oldest of too many has no answer yet."""
        adopted = "id NOT LIKE ? ORDER BY rowid"  # whose payer is known
        waiting = self._db.execute(f"SELECT id FROM asked WHERE {adopted}", (f"{_PAID_BEFORE}%",)).fetchall()
        if len(waiting) >= ASKED_MAX:
            with suppress(RemoteProtocolError):
                self._finish(waiting[0][0])
            if self._is_asked(waiting[0][0]):
                raise NetworkError(Code.PEER_UNREACHABLE, f"The mint {self._mint} owes {ASKED_MAX} answers: try later.")

    def _ask_once(self, id: str, path: str, body: dict[str, Any], outputs: Sequence[Output], fee: int = 0) -> None:
        """What is asked for is ours. If it was asked for before, it is what was asked for then."""
        if not self._is_asked(id):
            self._make_room()
            self._keep(id, path, body, outputs, fee=fee)
        self._finish(id)

    def _keep(
        self,
        id: str,
        path: str,
        body: dict[str, Any],
        outputs: Sequence[Output],
        invoice: Invoice | None = None,
        spent: Sequence[str] = (),
        fee: int = 0,
    ) -> None:
        """The request is on disk with the secrets of what it asks for, and its inputs are set aside."""
        self._load_keys()
        sent = [{"amount": each.amount, "id": self._keyset, "B_": each.blinded.point} for each in outputs]
        kept = [
            [each.amount, self._keyset, each.blinded.secret, each.blinded.factor.hex(), each.ours] for each in outputs
        ]
        payer, reference = (invoice.payer, invoice.reference) if invoice else (b"", "")
        with transaction(self._db):
            row = (id, path, json.dumps({**body, "outputs": sent}), json.dumps(kept), payer, reference, fee)
            if not self._db.execute("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
                return  # another process of ours was quicker: it is asked as that one has it
            taken = [(id, secret) for secret in spent]
            set_aside = "UPDATE proofs SET spent = ? WHERE secret = ? AND spent = ''"
            if self._db.executemany(set_aside, taken).rowcount < len(taken):
                raise Refused(Code.BUSY, "Another process pays out of this purse just now: nothing was paid.")

    def _finish(self, id: str) -> None:
        """What was asked for is ours, or on disk as means to be given away. Asked again after a crash, the mint says
        what it has said. What another process has finished is left as it is: its tokens may be spent by now."""
        row = self._one("SELECT path, body, outputs, payer, reference, fee FROM asked WHERE id = ?", id)
        if row is None:
            return  # another process was quicker
        path, body, outputs, payer, reference, fee = row
        asked, kept = json.loads(body), json.loads(outputs)
        with self._reading():
            own, given = self._answered(id, path, asked, kept)
        with transaction(self._db):
            here = self._db.execute("DELETE FROM asked WHERE id = ? AND body = ?", (id, body)).rowcount
            finished = "SELECT 1 FROM done WHERE id = :id UNION ALL SELECT 1 FROM payments WHERE id = :id"
            if not here and self._db.execute(finished, {"id": id}).fetchone():
                return
            self._db.executemany("INSERT OR IGNORE INTO proofs VALUES (?, ?, ?, ?, '')", own)
            gone = [(each["secret"],) for each in asked.get("inputs", ())]
            self._db.executemany("DELETE FROM proofs WHERE secret = ?", gone)
            if given:
                ucr = sum(each["amount"] for each in given) * self._ucr_per_unit
                content = json.dumps({"mint": self._mint, "proofs": given}).encode()
                means = Means(self.name, payer, reference, ucr, content).encode()
                self._db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?)", (id, means))
            else:
                self._db.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", (id, fee))

    def _answered(
        self, id: str, path: str, asked: dict[str, Any], kept: list[Any]
    ) -> tuple[list[tuple[str, int, str, str]], list[dict[str, Any]]]:
        """The tokens that the mint has signed: those that are ours, as their rows, and those to be given away."""
        answer = self._restored(asked) or self._sent(id, path, asked)
        own, given = [], []
        for signature, (amount, keyset, secret, factor, ours) in zip(answer["signatures"], kept, strict=True):
            hidden, key = Blinded(secret, bytes.fromhex(factor)), self._keys_of(keyset)[amount]
            if proof := signature.get("dleq"):  # of mints that give one
                check_dleq(str(proof.get("e")), str(proof.get("s")), hidden.point, signature["C_"], key)
            opened = hidden.open(signature["C_"], key)
            if ours:
                own.append((secret, amount, keyset, opened))
                continue
            given.append({"amount": amount, "id": keyset, "secret": secret, "C": opened})
            if proof:  # whoever gets the token can see by itself that the mint has signed it
                given[-1]["dleq"] = {"e": proof["e"], "s": proof["s"], "r": factor}
        return own, given

    def _restored(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What the mint has answered to it before (NUT-09); None if it was not asked yet, or has refused."""
        restored = self._ask("/v1/restore", {"outputs": asked["outputs"]})
        if (count := len(restored.get("signatures", []))) not in (0, len(asked["outputs"])):
            raise ValueError("a part of an answer")
        return restored if count else None

    def _sent(self, id: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The mint's answer. After a no, it may have given it to another process, or to an earlier try, meanwhile: only if it
        has not, and will not, the request is forgotten, and what is unspent is free again. The mint's keys, which it may
        have changed, are asked for anew."""
        try:
            return self._ask(path, asked)
        except RemoteProtocolError as refused:
            self._keyset = ""
            secrets = [each["secret"] for each in asked.get("inputs", ())]
            points = [hash_to_curve(each.encode()).format().hex() for each in secrets]
            states = self._states(points) if points else []
            if restored := self._restored(asked):  # asked for after the states: what is spent for us is signed
                return restored
            if any(each not in ("UNSPENT", "SPENT") for each in states):
                message = f"The mint {self._mint} has not decided yet: {refused.message}"
                raise NetworkError(Code.PEER_UNREACHABLE, message) from None
            free = [(each, id) for each, state in zip(secrets, states, strict=True) if state == "UNSPENT"]
            with transaction(self._db):
                if self._db.execute("DELETE FROM asked WHERE id = ? AND body = ?", (id, json.dumps(asked))).rowcount:
                    self._db.executemany("UPDATE proofs SET spent = '' WHERE secret = ? AND spent = ?", free)
            raise

    def _load_keys(self) -> None:
        if self._keyset:
            return
        with self._reading():
            self._learn(self._ask("/v1/keys")["keysets"])
            for keyset in self._ask("/v1/keysets")["keysets"]:
                if keyset["unit"] == "sat" and keyset["active"]:
                    self._keyset, self._fee_ppk = str(keyset["id"]), int(keyset.get("input_fee_ppk", 0))

    def _keys_of(self, keyset: str) -> dict[int, str]:
        """By amount; none of a keyset that the mint does not have. It signs with one, and stands by those before it."""
        self._load_keys()
        if keyset not in self._keys and HEX.fullmatch(keyset):
            with self._reading():
                self._learn(self._ask(f"/v1/keys/{keyset}").get("keysets", []))
        return self._keys.get(keyset, {})

    def _learn(self, keysets: Sequence[dict[str, Any]]) -> None:
        for each in keysets:
            self._keys[each["id"]] = {int(amount): str(key) for amount, key in each["keys"].items()}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What the mint has answered, if it is as the protocol has it. Raises `NetworkError`, for then it is none."""
        try:
            yield
        except _MALFORMED as error:
            message = f"The mint {self._mint} answered with something else than was asked ({type(error).__name__})."
            raise NetworkError(Code.PEER_UNREACHABLE, message) from None

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
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            raise NetworkError(Code.PEER_UNREACHABLE, f"The mint {self._mint} did not answer: {error}.") from None
        if not isinstance(found, dict):
            raise NetworkError(
                Code.PEER_UNREACHABLE, f"The mint {self._mint} answered with something else than was asked."
            )
        return found


def _carry_over(database: sqlite3.Connection) -> None:
    """What the first form of the purse (`requests`, `paid`) had asked for and paid is in the tables of this one."""
    before = "SELECT 1 FROM sqlite_schema WHERE name = 'requests'"
    if not database.execute(before).fetchone():
        return
    with transaction(database):
        if not database.execute(before).fetchone():
            return  # another process has done it meanwhile
        database.execute("INSERT INTO payments SELECT ? || reference, means FROM paid", (_PAID_BEFORE,))
        rows = database.execute("SELECT id, path, body, outputs, done FROM requests").fetchall()
        for id, path, body, outputs, done in rows:
            _carry_request(database, id, path, body, outputs, bool(done))
        database.execute("DROP TABLE requests")
        database.execute("DROP TABLE paid")


def _carry_request(database: sqlite3.Connection, id: str, path: str, body: str, outputs: str, done: bool) -> None:
    asked, kept = json.loads(body), json.loads(outputs)
    if id.startswith(_PAID_BEFORE):
        if database.execute("SELECT 1 FROM payments WHERE id = ?", (id,)).fetchone():
            return
        if done:  # the change is in the purse, or was spent; what was to be given away is still to be had from the mint
            pairs = [(out, one) for out, one in zip(asked["outputs"], kept, strict=True) if not one[-1]]
            asked["outputs"], kept = [out for out, _ in pairs], [one for _, one in pairs]
        reference, fee = id.removeprefix(_PAID_BEFORE), 0
    else:
        given = sum(each["amount"] for each in asked.get("inputs", ()))
        reference, fee = "", max(0, given - sum(amount for amount, *_ in kept))
        if done:
            database.execute("INSERT INTO done VALUES (?, ?)", (id, fee))
            return
    row = (id, path, json.dumps(asked), json.dumps(kept), b"", reference, fee)
    database.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", row)
