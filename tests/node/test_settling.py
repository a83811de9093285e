"""How vouchers reach a node: with a later order, or on a stream of their own. Whoever is owed nothing writes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.accounts import Accounts
from fallow.node.earnings import Earning, earnings
from fallow.node.journal import Journal
from fallow.node.journal_file import JOURNAL
from fallow.node.log import wall_ms
from fallow.node.network.seam import Network
from fallow.node.settling import Settling
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError
from fallow.protocol.job import Event, JobState
from fallow.protocol.limits import SKEW_MS
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.jobs import DeclineMessage, ReceiptMessage
from fallow.protocol.messages.payment import VoucherReply, VoucherRequest
from fallow.protocol.payment import LEDGER, Channel, Voucher
from fallow.protocol.work import Work

from .conftest import Daemon, Home, Start, client_network
from .raw_client import Ask, Conversation, Payer, profile_of
from .test_journal import NODE, PAYER, order, receipt

PROMPT = Work(((1, 40, 41, 42, 43),))
OWNER = bytes(32)


async def _finished(network: Network, ask: Ask, **changes: object) -> Conversation:
    with trio.fail_after(30):
        talk = await Conversation.begin(network, ask, **changes)
        await talk.run()
    return talk


async def _left_unpaid(network: Network, ask: Ask) -> Conversation:
    """A job of which the last voucher is signed and kept back."""
    with trio.fail_after(30):
        talk = await Conversation.begin(network, ask)
        while not isinstance(await talk.next(), ReceiptMessage):
            pass
        (claim,) = talk.delivery.receipts
        state, added = ask.payer.state, claim.record.amount_ucr
        state.paid(sign(state.pay(claim.id, Claim(added), wall_ms()), ask.payer.key), Claim(added))
        await talk.send(Event.DECLINE, DeclineMessage("later"))
        await talk.closed()
    return talk


def _earned(node: Daemon, payer: Payer) -> list[Earning]:
    return [row for row in earnings(node.state) if row.payer == bytes(payer.key.verify_key)]


async def test_a_voucher_comes_with_the_next_order_that_is_accepted(network: Network, node: Daemon, home: Home) -> None:
    payer = Payer(await profile_of(network, network.peers()[0]))
    first = await _left_unpaid(network, Ask(payer, home.chat, PROMPT))
    replayed = await _finished(network, first.ask, order=first.order)
    assert replayed.refused is not None
    assert replayed.refused.code == "replayed"
    assert [row.paid_ucr for row in _earned(node, payer)] == [0]  # a refusal writes nothing
    for _ in range(2):  # the second time with a voucher that the node has already
        talk = await _finished(network, Ask(payer, home.chat, PROMPT))
        assert talk.job.state is JobState.SETTLED
    rows = _earned(node, payer)
    assert all(row.voucher for row in rows)
    assert sum(row.paid_ucr for row in rows) == payer.state.promised_ucr


@pytest.mark.spec("P-7", "J-11")
async def test_an_order_with_a_voucher_for_nothing_of_ours_is_refused(
    network: Network, node: Daemon, home: Home
) -> None:
    payer = Payer(await profile_of(network, network.peers()[0]))
    stray = sign(payer.state.pay(os.urandom(32), Claim(5), wall_ms()), payer.key)
    talk = await _finished(network, Ask(payer, home.chat, PROMPT), voucher=stray.envelope)
    assert talk.refused is not None
    assert talk.refused.code == "unpaid"
    with closing(sqlite3.connect(node.state / JOURNAL)) as db:
        assert not db.execute("SELECT 1 FROM vouchers WHERE id = ?", (stray.id,)).fetchone()


@pytest.mark.spec("E-2")
async def test_what_is_wrong_with_the_node_itself_is_not_told_to_strangers(start: Start, home: Home) -> None:
    node = start(bundles=["tiny-chat"])
    async with client_network([node.address]) as network:
        payer = Payer(await profile_of(network, network.peers()[0]))
        with closing(sqlite3.connect(node.state / JOURNAL)) as db:
            db.execute("ALTER TABLE receipts RENAME TO gone")
        talk = await _finished(network, Ask(payer, home.chat, PROMPT))
    assert talk.refused is not None
    assert talk.refused.code == "corrupt_store"
    assert "sqlite" not in talk.refused.detail
    assert str(node.state) not in talk.refused.detail
    (refusal,) = (event for event in node.events("job_refused") if event["event"] == "job_refused")
    assert JOURNAL in refusal["why"]


class Questions:
    """A stream whose other side asked all this and left."""

    def __init__(self, *frames: bytes) -> None:
        self.peer = bytes(PAYER.verify_key)
        self.answers: list[bytes] = []
        self._frames = list(frames)

    async def receive(self) -> bytes:
        if not self._frames:
            raise NetworkError(Code.STREAM_CLOSED, "The other side has left.")
        return self._frames.pop(0)

    async def send(self, frame: bytes) -> None:
        self.answers.append(frame)

    async def close(self) -> None:
        self._frames.clear()

    async def reset(self) -> None:
        self._frames.clear()


def _ended(ago_ms: int, grace_ms: int) -> Signed[Channel]:
    ended = wall_ms() - ago_ms
    payer, node = bytes(PAYER.verify_key), bytes(NODE.verify_key)
    return sign(Channel(payer, node, OWNER, LEDGER, 1000, os.urandom(16), ended - 1000, ended, grace_ms), PAYER)


async def _brought(journal: Journal, channel: Signed[Channel], key: SigningKey = PAYER) -> Sequence[bytes]:
    """The answers to the voucher for a receipt that was issued on the channel."""
    accounts = Accounts(journal, wall_ms)
    job = order(1)
    claim = receipt(job, 0, 10)
    await accounts.claim(await accounts.open(channel), job.record, claim, 10)
    promise = sign(Voucher(channel.id, claim.id, 10, (), 0), key)
    stream = Questions(encode_message(VoucherRequest(channel.envelope, promise.envelope)))
    await Settling(bytes(NODE.verify_key), OWNER, accounts).answer(stream)
    assert [decode_message_untrusted(answer) for answer in stream.answers] == [VoucherReply(promise.id)]
    return stream.answers


@pytest.mark.spec("P-16", "P-2")
async def test_a_channel_that_has_ended_is_still_settled_within_its_grace(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await _brought(journal, _ended(2 * SKEW_MS, grace_ms=4 * SKEW_MS))
    journal.close()


@pytest.mark.spec("P-2")
async def test_after_the_grace_nothing_is_settled(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    channel = _ended(4 * SKEW_MS, grace_ms=2 * SKEW_MS)
    with pytest.raises(RemoteProtocolError) as late:
        await _brought(journal, channel)
    assert late.value.code == "expired"
    assert journal.channel(channel.id).voucher is None
    journal.close()
