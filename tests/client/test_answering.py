"""Whose disputes a client answers, and how many: each answer is kept, and shows plaintext."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nacl.signing import SigningKey

from fallow.client import wallet_answers
from fallow.client.answering import _answer
from fallow.client.wallet import Wallet
from fallow.protocol.claims import Claim
from fallow.protocol.disputes import Dispute, Kind
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, Refused
from fallow.protocol.opening import Opening
from fallow.protocol.orders import JobOrder
from fallow.protocol.prices import Price
from fallow.protocol.proofs import decode_proof_untrusted
from fallow.protocol.receipts import Receipt
from fallow.protocol.work import Parameters

KEY, PAYEE, OTHER, STRANGER = (SigningKey(bytes([one]) * 32) for one in (1, 2, 3, 4))
JUDGES = tuple(bytes([one]) * 32 for one in (0x21, 0x22, 0x23))
OWNER, ZERO, NOW_MS = b"\x0c" * 32, bytes(32), 1_000


def ordered(channel: bytes, executor: SigningKey = PAYEE, candidates: tuple[bytes, ...] = JUDGES) -> Signed[JobOrder]:
    record = JobOrder(
        ZERO, "generate", Parameters(64), 1, 5, 64, ZERO, bytes(executor.verify_key), ZERO,
        Price(ZERO, "generate", 0, 1, 4, 0), channel, 500, NOW_MS, bytes(16), 1000, 1000, ZERO, 10**6, 1000, candidates,
        None, None,
    )  # fmt: skip
    return sign(record, KEY)


def dispute(
    kind: Kind, order: bytes, number: int, signer: SigningKey = PAYEE, receipt: bytes = ZERO
) -> Signed[Dispute]:
    accused = bytes(KEY.verify_key)
    return sign(Dispute(str(kind), accused, order, receipt, 0, 1_000, number, ZERO), signer)


@dataclass
class Client:
    """With channels to two nodes, and an order to one of them."""

    desk: Any
    wallet: Wallet
    order: Signed[JobOrder]

    async def refuses(self, disputed: Signed[Dispute], judge: bytes = JUDGES[0]) -> Code:
        with pytest.raises(Refused) as refused:
            await _answer(self.desk, judge, disputed)
        return refused.value.code


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    with closing(Wallet(tmp_path / "wallet.db", KEY)) as wallet:
        channel = await wallet.channel(bytes(PAYEE.verify_key), OWNER, 0, NOW_MS)
        await wallet.channel(bytes(OTHER.verify_key), OWNER, 0, NOW_MS)
        order = ordered(channel.channel.id)
        await wallet.keep_answer(order, Opening(order.id, ZERO, b"asked", (b"came",)), None, NOW_MS)
        yield Client(SimpleNamespace(wallet=wallet, key=KEY, now_ms=lambda: NOW_MS), wallet, order)


async def test_a_client_keeps_no_more_answers_than_it_may(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet_answers, "PLEAS_MAX", 2)
    claims = [dispute(Kind.UNPAID, client.order.id, number) for number in range(3)]
    first = await _answer(client.desk, JUDGES[0], claims[0])
    await _answer(client.desk, JUDGES[0], claims[1])
    assert await client.refuses(claims[2]) is Code.TOO_LARGE
    for judge in JUDGES:
        assert await _answer(client.desk, judge, claims[0]) == first


@pytest.mark.spec("A-36")
async def test_a_client_answers_nobody_but_who_was_to_work_on_the_order(client: Client) -> None:
    order = client.order.id
    assert await client.refuses(dispute(Kind.UNPAID, order, 0, STRANGER)) is Code.WRONG_EXECUTOR
    assert await client.refuses(dispute(Kind.UNPAID, order, 0, OTHER)) is Code.WRONG_EXECUTOR  # paid for other work
    assert await client.refuses(dispute(Kind.DISOWNED, order, 0)) is Code.WRONG_EXECUTOR
    assert await client.refuses(dispute(Kind.UNPAID, b"\x09" * 32, 0)) is Code.INPUT_MISMATCH
    assert await _answer(client.desk, JUDGES[0], dispute(Kind.UNPAID, order, 0)) is not None


@pytest.mark.spec("A-36")
async def test_a_client_shows_no_plaintext_to_a_judge_who_was_not_drawn(client: Client) -> None:
    """Nor what others were given already."""
    disputed = dispute(Kind.UNPAID, client.order.id, 0)
    await _answer(client.desk, JUDGES[0], disputed)
    assert await client.refuses(disputed, judge=b"\x24" * 32) is Code.UNSATISFIABLE_ASSURANCE
    few = ordered(client.order.record.channel, candidates=JUDGES[:2])
    await client.wallet.keep_answer(few, Opening(few.id, ZERO, b"asked", ()), None, NOW_MS)
    assert await client.refuses(dispute(Kind.UNPAID, few.id, 0)) is Code.UNSATISFIABLE_ASSURANCE


async def test_a_voucher_is_shown_to_whoever_it_was_signed_for_also_where_nothing_else_is_kept(client: Client) -> None:
    channel = client.wallet.channel_to(bytes(PAYEE.verify_key))
    assert channel is not None
    paid = sign(Receipt(b"\x09" * 32, 0, None, 0, 1, ZERO, (-1,), "c", 3, "final"), PAYEE)
    voucher = await client.wallet.pay(channel, paid, Claim(3), NOW_MS)
    given = await _answer(client.desk, JUDGES[0], dispute(Kind.UNPAID, b"\x09" * 32, 0, receipt=paid.id))
    assert voucher.envelope in decode_proof_untrusted(given.proof).records
    assert await client.refuses(dispute(Kind.UNPAID, b"\x09" * 32, 0, OTHER, paid.id)) is Code.INPUT_MISMATCH


@pytest.mark.spec("A-36")
async def test_of_what_an_older_wallet_has_kept_only_vouchers_are_shown(tmp_path: Path, client: Client) -> None:
    """It does not say whose work it was: whoever was ever paid could name the order, at any judge."""
    order, channel = client.order.id, client.wallet.channel_to(bytes(PAYEE.verify_key))
    assert channel is not None
    paid = sign(Receipt(order, 0, None, 0, 1, ZERO, (-1,), "c", 3, "final"), PAYEE)
    voucher = await client.wallet.pay(channel, paid, Claim(3), NOW_MS)
    with closing(sqlite3.connect(tmp_path / "wallet.db")) as old:
        columns = "".join(f"ALTER TABLE answers DROP COLUMN {name}; " for name in ("job", "accept", "mandate"))
        old.executescript(f"{columns}DROP TABLE cases; PRAGMA user_version = 4;")
    with closing(Wallet(tmp_path / "wallet.db", KEY)) as wallet:
        again = Client(SimpleNamespace(wallet=wallet, key=KEY, now_ms=lambda: NOW_MS), wallet, client.order)
        assert await again.refuses(dispute(Kind.UNPAID, order, 0, OTHER)) is Code.INPUT_MISMATCH
        assert await again.refuses(dispute(Kind.UNPAID, order, 0)) is Code.INPUT_MISMATCH
        given = await _answer(again.desk, b"\x24" * 32, dispute(Kind.UNPAID, order, 1, receipt=paid.id))
        shown = decode_proof_untrusted(given.proof)
        assert voucher.envelope in shown.records
        assert shown.openings == ()
