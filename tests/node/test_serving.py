"""Jobs on a real node: what is served, what is refused, and what is owed for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.earnings import earnings
from fallow.node.log import wall_ms
from fallow.node.network.seam import Network
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import sign
from fallow.protocol.errors import NetworkError
from fallow.protocol.identity import content_hash, peer_id
from fallow.protocol.job import Event, JobState
from fallow.protocol.limits import SKEW_MS, WINDOW_TOKENS
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobReply, BlobRequest
from fallow.protocol.messages.jobs import CancelMessage, ChunkMessage, HeartbeatMessage, VoucherMessage
from fallow.protocol.names import profile_key, provider_key
from fallow.protocol.numerics import narrowed
from fallow.protocol.published import decode_profiles_untrusted
from fallow.protocol.receipts import CANCELLED, FINAL, OPEN, YIELDED, Delivery
from fallow.protocol.streams import BLOB_PROTOCOL, JOB_PROTOCOL
from fallow.protocol.work import Work

from .conftest import Daemon, Home
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))


@pytest.fixture
async def payer(network: Network) -> Payer:
    (node,) = network.peers()
    return Payer(await profile_of(network, node))


async def blob(network: Network, node: bytes, wanted: bytes) -> bytes | None:
    with trio.fail_after(10):
        reply = decode_message_untrusted(
            await network.request(node, BLOB_PROTOCOL, encode_message(BlobRequest(wanted)))
        )
    assert isinstance(reply, BlobReply)
    return reply.content


async def finished(network: Network, ask: Ask, **changes: object) -> Conversation:
    with trio.fail_after(30):
        talk = await Conversation.begin(network, ask, **changes)
        await talk.run()
    return talk


@pytest.mark.spec("J-19", "J-23")
async def test_generates_with_a_receipt_for_each_window_and_is_paid(
    network: Network, payer: Payer, home: Home, node: Daemon
) -> None:
    talk = await finished(network, Ask(payer, home.chat, PROMPT, max_tokens=2 * WINDOW_TOKENS))
    receipts = [receipt.record for receipt in talk.delivery.receipts]
    assert talk.job.state is JobState.SETTLED
    assert len(talk.tokens) == 2 * WINDOW_TOKENS
    # Alone on the node, a text is written by the program of one slot; the accept names those of four, too.
    accepted, ran = talk.delivery.numerics_class, {receipt.numerics_class for receipt in receipts}
    assert ran == {narrowed(accepted, ("1x64",))} | ({narrowed(accepted, ("1x64", "1x256"))} & ran)
    assert "+4x64" in accepted
    # The last window's receipt is final: none is open at the very end.
    assert [(r.end, r.tokens) for r in receipts] == [(OPEN, WINDOW_TOKENS), (FINAL, WINDOW_TOKENS)]
    assert receipts[-1].amount_ucr == 5 * 1 + 2 * WINDOW_TOKENS * 4 == payer.state.promised_ucr
    rows = [row for row in earnings(node.state) if row.payer == bytes(payer.key.verify_key)]
    assert [(row.window, row.tokens, row.voucher is not None) for row in rows] == [(0, 32, True), (1, 32, True)]
    assert sum(row.owed_ucr for row in rows) == payer.state.promised_ucr


async def test_checks_a_window_and_attests_to_what_it_found(network: Network, payer: Payer, home: Home) -> None:
    made = await finished(network, Ask(payer, home.chat, PROMPT, max_tokens=8))
    subject = made.delivery.receipts[-1]
    claim = Work((PROMPT.sequences[0] + made.tokens,), claimed=8)
    talk = await finished(network, Ask(payer, home.chat, claim, entry="score", checks=subject.id))
    assert talk.job.state is JobState.SETTLED
    assert talk.attestation is not None
    assert talk.attestation.subject == subject.id
    assert talk.attestation.numerics_class == narrowed(talk.delivery.numerics_class, ("1x64",))
    assert not any(talk.attestation.gaps_micro)
    pairs = zip(talk.attestation.values_micro, subject.record.values_micro, strict=True)
    assert max(abs(own - other) for own, other in pairs) < 1000
    assert talk.delivery.amount_ucr == 5 * 1 + 8 * 1


async def test_calls_a_function(network: Network, payer: Payer, home: Home) -> None:
    talk = await finished(network, Ask(payer, home.embed, Work(((1, 5, 6, 2), (1, 7, 2))), entry="call"))
    (piece,) = talk.pieces
    (receipt,) = talk.delivery.receipts
    assert (piece.shape, receipt.record.tokens, receipt.record.end) == ((2, 64), 0, FINAL)
    assert receipt.record.amount_ucr == 2 * 1 + 7 * 1
    assert talk.job.state is JobState.SETTLED


@pytest.mark.spec("J-12")
async def test_a_replayed_order_is_refused(network: Network, payer: Payer, home: Home) -> None:
    ask = Ask(payer, home.chat, PROMPT)
    first = await finished(network, ask)
    again = await finished(network, ask, order=first.order)
    assert again.refused is not None
    assert again.refused.code == "replayed"


REFUSALS = {
    "expired": lambda ask: {"order": ask.order(created_ms=wall_ms() - 2 * SKEW_MS)},
    "wrong_executor": lambda ask: {"order": ask.order(executor=bytes(32))},
    "unknown_bundle": lambda ask: {"order": ask.order(bundle=bytes(32))},
    "unknown_entry": lambda ask: {"order": ask.order(entry="call")},
    "stale_prices": lambda ask: {"order": ask.order(price=replace(ask.order().record.price, call_ucr=1))},
    "stale_worker_key": lambda ask: {"order": ask.order(worker_key=bytes(32))},
    "price_too_high": lambda ask: {"order": ask.order(amount_ucr_max=1)},
    "input_too_long": lambda ask: {"order": ask.order(input_tokens=250, amount_ucr_max=10_000)},
    "bad_signature": lambda ask: {"order": sign(ask.order().record, SigningKey.generate())},
    "bad_record": lambda ask: {"order": ask.order(planned_tokens=1)},
}


@pytest.mark.spec("J-7", "J-10", "J-11", "E-1")
@pytest.mark.parametrize("code", REFUSALS)
async def test_an_order_that_must_not_run_is_refused_with_the_reason(
    network: Network, payer: Payer, home: Home, code: str
) -> None:
    ask = Ask(payer, home.chat, PROMPT)
    talk = await finished(network, ask, **REFUSALS[code](ask))
    assert talk.refused is not None
    assert talk.refused.code == code
    assert payer.state.promised_ucr == 0


@pytest.mark.spec("J-11")
@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ("generate", {"channel": bytes(32)}),
        ("generate", {"calls": 2}),
        ("generate", {"planned_tokens": 9}),
        ("score", {"calls": 2}),
        ("score", {"planned_tokens": 0}),
        ("score", {"checks": None}),
        ("call", {"planned_tokens": 1}),
    ],
)
async def test_an_order_whose_fields_do_not_fit_is_a_bad_record(
    network: Network, payer: Payer, home: Home, entry: str, changes: dict[str, Any]
) -> None:
    work = Work((PROMPT.sequences[0],), claimed=2 if entry == "score" else 0)
    checks = bytes(32) if entry == "score" else None
    ask = Ask(payer, home.embed if entry == "call" else home.chat, work, entry=entry, checks=checks)
    talk = await finished(network, ask, order=ask.order(amount_ucr_max=10_000, **changes))
    assert talk.refused is not None
    assert talk.refused.code == "bad_record"


@pytest.mark.spec("J-11")
async def test_credit_is_refused_beyond_the_channels_limit(network: Network, payer: Payer, home: Home) -> None:
    poor = Payer(payer.profile, limit_ucr=10)
    talk = await finished(network, Ask(poor, home.chat, PROMPT))
    assert talk.refused is not None
    assert talk.refused.code == "credit_exhausted"


@pytest.mark.spec("J-11")
async def test_a_channel_of_another_owner_is_refused(network: Network, payer: Payer, home: Home) -> None:
    channel = replace(payer.state.channel.record, payout_owner=bytes(32))
    payer.state.channel = sign(channel, payer.key)
    talk = await finished(network, Ask(payer, home.chat, PROMPT))
    assert talk.refused is not None
    assert talk.refused.code == "wrong_executor"


@pytest.mark.spec("J-11")
async def test_a_voucher_signed_by_somebody_else_is_refused_with_the_order(
    network: Network, payer: Payer, home: Home
) -> None:
    voucher = sign(payer.state.pay(bytes(32), Claim(5), wall_ms()), SigningKey.generate())
    talk = await finished(network, Ask(payer, home.chat, PROMPT), voucher=voucher.envelope)
    assert talk.refused is not None
    assert talk.refused.code == "bad_signature"


@pytest.mark.spec("J-16")
async def test_input_that_does_not_match_its_digest_fails_the_job(network: Network, payer: Payer, home: Home) -> None:
    ask = Ask(payer, home.chat, PROMPT)
    talk = await finished(network, ask, order=ask.order(input_digest=bytes(32)))
    assert talk.failed is not None
    assert (talk.failed.code, talk.job.state) == ("input_mismatch", JobState.BROKEN)


@pytest.mark.spec("J-16")
async def test_work_for_more_results_than_the_order_counts_fails_the_job(
    network: Network, payer: Payer, home: Home
) -> None:
    ask = Ask(payer, home.embed, Work(((1, 5, 6, 2), (1, 7, 2))), entry="call")
    talk = await finished(network, ask, order=ask.order(calls=1))
    assert talk.failed is not None
    assert talk.failed.code == "input_mismatch"


@pytest.mark.spec("J-16")
@pytest.mark.parametrize("planned", [1, 3])
async def test_a_check_of_other_than_the_planned_tokens_fails_before_any_finding(
    network: Network, payer: Payer, home: Home, planned: int
) -> None:
    ask = Ask(payer, home.chat, Work(PROMPT.sequences, claimed=2), entry="score", checks=bytes(32))
    talk = await finished(network, ask, order=ask.order(planned_tokens=planned, amount_ucr_max=10_000))
    assert talk.failed is not None
    assert (talk.failed.code, talk.attestation, talk.delivery.receipts) == ("input_mismatch", None, [])


@pytest.mark.spec("J-9")
async def test_nothing_but_an_order_begins_a_job(network: Network, payer: Payer) -> None:
    for frame in (b"\xff garbage", encode_message(HeartbeatMessage())):
        with trio.fail_after(10):
            stream = await network.open(payer.profile.node, JOB_PROTOCOL)
            await stream.send(frame)
            with pytest.raises(NetworkError, match="stream_closed"):
                await stream.receive()


@pytest.mark.spec("J-29")
async def test_delivery_stops_without_vouchers(network: Network, payer: Payer, home: Home) -> None:
    """The window after an unpaid one is delivered, and no further: two receipts, 64 tokens, then silence."""
    talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.beat)
            while talk.job.unpaid < 2:
                await talk.next()
            # Heartbeats only, from here on: three of them take longer than the other 136 tokens would.
            for _ in range(3):
                assert isinstance(decode_message_untrusted(await talk.stream.receive()), HeartbeatMessage)
            await talk.pay(talk.delivery.receipts[0])
            assert isinstance(await talk.next(), ChunkMessage)
            nursery.cancel_scope.cancel()
    await talk.stream.reset()
    assert len(talk.tokens) == 2 * WINDOW_TOKENS + 1


@pytest.mark.spec("J-35")
async def test_a_cancelled_job_is_paid_for_what_was_delivered(network: Network, payer: Payer, home: Home) -> None:
    talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
    with trio.fail_after(20):
        while not talk.tokens:
            await talk.next()
        await talk.send(Event.CANCEL, CancelMessage("enough"))
        await talk.run()
    last = talk.delivery.receipts[-1].record
    assert (last.end, talk.job.state) == (CANCELLED, JobState.SETTLED)
    assert last.amount_ucr == 5 + 4 * len(talk.tokens)  # all of an input that is shorter than a window
    again = await finished(network, Ask(payer, home.chat, PROMPT))
    assert again.job.state is JobState.SETTLED


@pytest.mark.spec("J-24")
async def test_a_job_that_delivered_nothing_still_ends_with_a_receipt_that_both_sides_agree_on(
    payer: Payer, home: Home
) -> None:
    ask = Ask(payer, home.chat, PROMPT)
    order, price = ask.order(), payer.profile.capability.prices[0]
    # The start of the transcript is salted: only client and worker know it, and the worker may be gone.
    executor, client = Delivery(order, price, "class", order.id), Delivery(order, price, "class", bytes(32))
    receipt = executor.next_receipt(YIELDED)
    assert receipt == client.next_receipt(YIELDED)
    assert (receipt.tokens, receipt.amount_ucr) == (0, 0)


@pytest.mark.spec("J-31", "E-5")
async def test_one_voucher_does_not_pay_for_two_windows(
    network: Network, payer: Payer, home: Home, node: Daemon
) -> None:
    talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.beat)
            while talk.job.unpaid < 2:
                await talk.next()
            await talk.pay(talk.delivery.receipts[0])
            voucher = payer.state.latest
            assert voucher is not None
            await talk.send(Event.VOUCHER, VoucherMessage(voucher.envelope))
            await talk.closed()
            nursery.cancel_scope.cancel()
    events = await trio.to_thread.run_sync(node.events, "stream_broken")
    assert any("unpaid" in why for event in events for why in event.get("why", ()))


@pytest.mark.spec("J-32", "E-5")
async def test_a_silent_client_loses_its_job_and_nobody_elses(network: Network, payer: Payer, home: Home) -> None:
    silent = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
    with trio.fail_after(20):
        talk = await finished(network, Ask(payer, home.chat, PROMPT))
        await silent.closed()
    assert talk.job.state is JobState.SETTLED


@pytest.mark.spec("J-13")
async def test_more_jobs_than_slots_are_refused_with_a_time_to_retry(
    network: Network, payer: Payer, home: Home
) -> None:
    running = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
                nursery.start_soon(talk.beat)
                await talk.next()
                running.append(talk)
            more = await finished(network, Ask(payer, home.chat, PROMPT))
            assert more.refused is not None
            assert more.refused.code == "busy"
            assert more.refused.retry_after_ms > 0
            for talk in running:
                await talk.stream.reset()
            nursery.cancel_scope.cancel()


@pytest.mark.spec("D-14")
async def test_bundles_are_shared_by_hash(network: Network, payer: Payer, home: Home) -> None:
    bundle = home.store.open(home.chat)
    wanted = [bundle.hash, bundle.manifest.tokenizer.chunks[0], bytes(32)]
    got = [await blob(network, payer.profile.node, hash) for hash in wanted]
    assert got[2] is None
    assert [content_hash(content) for content in got[:2] if content] == wanted[:2]


@pytest.mark.spec("D-9")
async def test_the_mesh_knows_who_serves_what(network: Network, payer: Payer, home: Home, node: Daemon) -> None:
    bundle = home.store.open(home.chat).hash
    with trio.fail_after(10):
        (provider,) = await network.find(provider_key(bundle))
        value = await network.get(profile_key(payer.profile.node))
    assert peer_id(provider.peer) == node.ready["peer_id"]
    assert value is not None
    published = decode_profiles_untrusted(value, wall_ms())
    assert published.capability.record.served_bundle(bundle) is not None
    assert set(published.connectivity.record.addresses) == set(node.ready["addresses"])
