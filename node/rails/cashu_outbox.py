"""What a mint is asked to sign: on disk before it is asked, and until its answer is.

    keep -> the request is on disk with its secrets, and its inputs are set aside
    finish -> the mint signs, or says again what it has signed (NUT-09): that is on disk in the request's place
           -> it says no, for good: the request is forgotten, and what is unspent of its inputs is free again

So a crash between its answer and ours loses nothing, and two processes of ours that finish one request get its tokens once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ...protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ...protocol.means import Means
from ..transaction import transaction
from .cashu_crypto import Blinded, check_dleq, hash_to_curve
from .cashu_file import PAID_BEFORE
from .cashu_means import NAME
from .cashu_mint import Mint
from .rail import Invoice

ASKED_MAX: Final = 64
"""Requests without the mint's answer, each of some hundred kilobytes at most: tokens that the mint never signed cost
nothing, and while it is not there, they cannot be told from others."""


@dataclass(frozen=True, slots=True)
class Output:
    """One token that a request asks for."""

    amount: int
    blinded: Blinded
    ours: bool
    """Kept by us; else given away as means."""


class Outbox:
    """The requests of one purse to its mint, and what has come of them. `ucr_per_unit`: of the tokens that are given away."""

    def __init__(self, db: sqlite3.Connection, mint: Mint, ucr_per_unit: int) -> None:
        self._db = db
        self._mint = mint
        self._ucr_per_unit = ucr_per_unit

    def is_asked(self, id: str) -> bool:
        """Whether it waits for the mint's answer."""
        return self._one("SELECT 1 FROM asked WHERE id = ?", id) is not None

    def fee_of(self, id: str) -> int | None:
        """Of a request whose tokens are ours, what the mint has kept; None if they are not, yet."""
        row = self._one("SELECT fee FROM done WHERE id = ?", id)
        return int(row[0]) if row else None

    def means_of(self, id: str) -> bytes | None:
        """Of a request whose tokens are given away, the means; None if there are none, yet."""
        row = self._one("SELECT means FROM payments WHERE id = ?", id)
        return bytes(row[0]) if row else None

    def ask_once(self, id: str, path: str, body: dict[str, Any], outputs: Sequence[Output], fee: int = 0) -> None:
        """What is asked for is ours. If it was asked for before, it is what was asked for then."""
        if not self.is_asked(id):
            self._make_room()
            self.keep(id, path, body, outputs, fee=fee)
        self.finish(id)

    def keep(
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
        keyset = self._mint.keyset
        sent = [{"amount": each.amount, "id": keyset, "B_": each.blinded.point} for each in outputs]
        kept = [[each.amount, keyset, each.blinded.secret, each.blinded.factor.hex(), each.ours] for each in outputs]
        payer, reference = (invoice.payer, invoice.reference) if invoice else (b"", "")
        with transaction(self._db):
            row = (id, path, json.dumps({**body, "outputs": sent}), json.dumps(kept), payer, reference, fee)
            if not self._db.execute("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
                return  # another process of ours was quicker: it is asked as that one has it
            taken = [(id, secret) for secret in spent]
            set_aside = "UPDATE proofs SET spent = ? WHERE secret = ? AND spent = ''"
            if self._db.executemany(set_aside, taken).rowcount < len(taken):
                raise Refused(Code.BUSY, "Another process pays out of this purse just now: nothing was paid.")

    def finish(self, id: str) -> None:
        """What was asked for is ours, or on disk as means to be given away. Asked again after a crash, the mint says
        what it has said. What another process has finished is left as it is: its tokens may be spent by now."""
        row = self._one("SELECT path, body, outputs, payer, reference, fee FROM asked WHERE id = ?", id)
        if row is None:
            return  # another process was quicker
        path, body, outputs, payer, reference, fee = row
        asked, kept = json.loads(body), json.loads(outputs)
        with self._mint.reading():
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
                content = json.dumps({"mint": self._mint.address, "proofs": given}).encode()
                means = Means(NAME, payer, reference, ucr, content).encode()
                self._db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?)", (id, means))
            else:
                self._db.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", (id, fee))

    def _make_room(self) -> None:
        """One more may be asked for. Raises `NetworkError` if the oldest of too many has no answer yet."""
        adopted = "id NOT LIKE ? ORDER BY rowid"  # whose payer is known
        waiting = self._db.execute(f"SELECT id FROM asked WHERE {adopted}", (f"{PAID_BEFORE}%",)).fetchall()
        if len(waiting) >= ASKED_MAX:
            with suppress(RemoteProtocolError):
                self.finish(waiting[0][0])
            if self.is_asked(waiting[0][0]):
                message = f"The mint {self._mint.address} owes {ASKED_MAX} answers: try later."
                raise NetworkError(Code.PEER_UNREACHABLE, message)

    def _answered(
        self, id: str, path: str, asked: dict[str, Any], kept: list[Any]
    ) -> tuple[list[tuple[str, int, str, str]], list[dict[str, Any]]]:
        """The tokens that the mint has signed: those that are ours, as their rows, and those to be given away."""
        answer = self._mint.restored(asked["outputs"]) or self._sent(id, path, asked)
        own, given = [], []
        for signature, (amount, keyset, secret, factor, ours) in zip(answer["signatures"], kept, strict=True):
            hidden, key = Blinded(secret, bytes.fromhex(factor)), self._mint.keys_of(keyset)[amount]
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

    def _sent(self, id: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The mint's answer. After a no, it may have given it to another process, or to an earlier try, meanwhile: only if it
        has not, and will not, the request is forgotten, and what is unspent is free again. The mint's keys, which it may
        have changed, are asked for anew."""
        try:
            return self._mint.ask(path, asked)
        except RemoteProtocolError as refused:
            self._mint.forget_keyset()
            secrets = [each["secret"] for each in asked.get("inputs", ())]
            points = [hash_to_curve(each.encode()).format().hex() for each in secrets]
            states = self._mint.states(points) if points else []
            if restored := self._mint.restored(asked["outputs"]):
                return restored  # asked for after the states: what is spent for us is signed
            if any(each not in ("UNSPENT", "SPENT") for each in states):
                message = f"The mint {self._mint.address} has not decided yet: {refused.message}"
                raise NetworkError(Code.PEER_UNREACHABLE, message) from None
            free = [(each, id) for each, state in zip(secrets, states, strict=True) if state == "UNSPENT"]
            with transaction(self._db):
                if self._db.execute("DELETE FROM asked WHERE id = ? AND body = ?", (id, json.dumps(asked))).rowcount:
                    self._db.executemany("UPDATE proofs SET spent = '' WHERE secret = ? AND spent = ?", free)
            raise

    def _one(self, statement: str, id: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(statement, (id,)).fetchone()
        return row
