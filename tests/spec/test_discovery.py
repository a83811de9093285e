"""Page 02: what may stand in the DHT, and what is believed of a node's answer about itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from nacl.encoding import RawEncoder
from nacl.signing import SignedMessage, SigningKey

from fallow.client.bundles import Bundles
from fallow.client.discovery import Discovery
from fallow.client.nodes import Node
from fallow.node import config
from fallow.node.availability import Availability
from fallow.node.book import Book
from fallow.node.connection import Connection
from fallow.node.link import Link
from fallow.node.log import wall_ms
from fallow.node.mandates import Authority
from fallow.node.network.seam import Network, Provider, Stream
from fallow.node.presence import Presence
from fallow.node.profiles import Offer
from fallow.node.trust import TrustList
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.codec import encode
from fallow.protocol.envelope import Signed, claimed_signer_untrusted, sign, verify_untrusted
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError
from fallow.protocol.evidence import Fault, Proven, prove
from fallow.protocol.identity import EXECUTOR, Issuer, Mandate, WorkerKey, cid
from fallow.protocol.limits import PROFILE_MS_MAX, PUBLISHED_BYTES_MAX, SKEW_MS
from fallow.protocol.messages.codec import Message, decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobReply, BlobRequest, ProfileReply, ProfileRequest
from fallow.protocol.messages.jobs import HeartbeatMessage
from fallow.protocol.names import profile_key, provider_key
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle, check_profile
from fallow.protocol.published import Profiles, check_published_untrusted, decode_profiles_untrusted, newest
from fallow.protocol.witness import Witness

OWNER, NODE, STRANGER, AGENT = (SigningKey(bytes([number] * 32)) for number in range(1, 5))
OWNER_KEY, NODE_KEY, STRANGER_KEY, AGENT_KEY = (bytes(key.verify_key) for key in (OWNER, NODE, STRANGER, AGENT))
BUNDLE = b"\x07" * 32
NOW_MS = 1_790_000_000_000
MANDATE = sign(Mandate(NODE_KEY, OWNER_KEY, (EXECUTOR,), 3, NOW_MS, NOW_MS + 1000, None), OWNER)
CAPABILITY = CapabilityProfile(
    NODE_KEY, MANDATE.id, 5, NOW_MS, NOW_MS + 1000, None, "", (EXECUTOR,), (),
    (ServedBundle(BUNDLE, ("call",), "class", 0, 0, 0),), (), 4, 0, 0, (),
)  # fmt: skip
CONNECTIVITY = ConnectivityProfile(
    NODE_KEY, 5, NOW_MS, NOW_MS + 1000, (), (), None, 1, 9_000, 150_000, 50_000, 20_000, None, None
)
WORKER = WorkerKey(NODE_KEY, b"\x09" * 32, NOW_MS, NOW_MS + 1000)


def unchecked(record: Any, **changes: Any) -> Any:
    """The record with fields that it would not be made with."""
    made = replace(record)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def refused(code: Code, check: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check(*arguments)
    assert caught.value.code is code, caught.value


@pytest.mark.spec("D-7", "N-10")
@pytest.mark.parametrize("profile", [CAPABILITY, CONNECTIVITY])
def test_a_profile_is_its_nodes_own_and_of_this_hour(profile: Any) -> None:
    longest = replace(profile, expires_ms=NOW_MS + PROFILE_MS_MAX)
    for now_ms in (NOW_MS - SKEW_MS, longest.expires_ms + SKEW_MS):
        check_profile(sign(longest, NODE), NODE_KEY, now_ms)
    for wrong, code, now_ms in (
        (sign(longest, STRANGER), Code.BAD_SIGNATURE, NOW_MS),
        (sign(replace(profile, node=STRANGER_KEY), NODE), Code.BAD_SIGNATURE, NOW_MS),
        (sign(longest, NODE), Code.EXPIRED, NOW_MS - SKEW_MS - 1),
        (sign(longest, NODE), Code.EXPIRED, longest.expires_ms + SKEW_MS + 1),
    ):
        refused(code, check_profile, wrong, NODE_KEY, now_ms)
    too_long = sign(unchecked(longest, expires_ms=longest.expires_ms + 1), NODE).envelope
    refused(Code.BAD_RECORD, partial(verify_untrusted, type(profile), too_long, signer=NODE_KEY))


@pytest.mark.spec("D-8")
@pytest.mark.parametrize("field", ["rtt_p95_us", "jitter_us", "loss_ppm"])
def test_a_node_is_interactive_by_three_figures_that_were_measured(field: str) -> None:
    assert CONNECTIVITY.interactive
    assert replace(CONNECTIVITY, rtt_p50_us=None, vantage_peers=0, metered=True).interactive
    for worse in (getattr(CONNECTIVITY, field) + 1, None):
        assert not replace(CONNECTIVITY, **{field: worse}).interactive


def published(sequence: int = 5, key: SigningKey = NODE, other: SigningKey = NODE, **changes: Any) -> bytes:
    capability = unchecked(CAPABILITY, sequence=sequence, node=bytes(key.verify_key), **changes)
    return Profiles(sign(capability, key), sign(replace(CONNECTIVITY, node=bytes(other.verify_key)), other)).encode()


@pytest.mark.spec("D-3", "L-1")
def test_the_dht_holds_a_nodes_own_profiles_under_its_own_key() -> None:
    key, value = profile_key(NODE_KEY), published()
    assert key == "/fallow/" + base64.urlsafe_b64encode(NODE_KEY).decode().strip("=")
    check_published_untrusted(key, value, NOW_MS)
    for where, what, code in (
        (profile_key(STRANGER_KEY), value, Code.BAD_SIGNATURE),
        (provider_key(BUNDLE), value, Code.BAD_SIGNATURE),
        (key, published(key=STRANGER, other=STRANGER), Code.BAD_SIGNATURE),
        (key, published(other=STRANGER), Code.BAD_SIGNATURE),
        (key, published(expires_ms=NOW_MS + PROFILE_MS_MAX + 1), Code.BAD_RECORD),
        (key, published(issued_ms=0, expires_ms=1), Code.EXPIRED),
        (key, encode([b"", b"", b""]), Code.BAD_RECORD),
        (key, encode({"a": 1}), Code.BAD_RECORD),
        (key, encode([b"", b""]), Code.BAD_ENCODING),
        (key, value + b"\0", Code.BAD_ENCODING),
        (key, bytes(PUBLISHED_BYTES_MAX + 1), Code.TOO_LARGE),
    ):
        refused(code, check_published_untrusted, where, what, NOW_MS)


@pytest.mark.spec("D-4")
def test_of_several_values_the_highest_sequence_counts_and_then_the_first_bytes() -> None:
    twins = sorted([published(7, region="u4p"), published(7, region="u33")])
    values = [published(6), twins[1], twins[0], published(5, jobs_max=9)]
    assert values[newest(values, NOW_MS)] == twins[0]
    assert values[::-1][newest(values[::-1], NOW_MS)] == twins[0]


class FakeStream:
    """The node's end of a stream on which these frames came."""

    peer = STRANGER_KEY

    def __init__(self, *frames: bytes) -> None:
        self._frames = list(frames)
        self.sent: list[Message] = []

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._frames:
            raise NetworkError(Code.STREAM_CLOSED, "the other side has closed the stream")
        return self._frames.pop(0)

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(decode_message_untrusted(frame))


class FakeNetwork:
    """A network in which each peer gives one answer, or none."""

    key = STRANGER_KEY

    def __init__(self, answers: dict[bytes, bytes], providers: Sequence[bytes] = ()) -> None:
        self.answers = answers
        self._providers = providers

    def addresses(self) -> tuple[str, ...]:
        return ()

    def peers(self) -> list[bytes]:
        return list(self.answers)

    def drop(self, peer: bytes) -> bool:
        return False

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        await trio.lowlevel.checkpoint()
        if peer not in self.answers:
            raise NetworkError(Code.PEER_UNREACHABLE, "it does not answer")
        return self.answers[peer]

    async def find(self, key: str, tell: Callable[[Provider], None] | None = None) -> list[Provider]:
        await trio.lowlevel.checkpoint()
        found = [Provider(peer, ("/ip4/192.0.2.1/tcp/1",)) for peer in self._providers]
        for provider in found:
            if tell is not None:
                tell(provider)
        return found

    async def get(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None


def presence(tmp_path: Path) -> Presence:
    settings = config.parse({"state": str(tmp_path)}, tmp_path)
    availability = Availability(jobs_max=4)
    offer = Offer(NODE_KEY, {}, (), (), sign(WORKER, NODE))
    return Presence(settings, NODE, Authority(OWNER_KEY, OWNER), cast(Network, FakeNetwork({})), availability, offer)


@pytest.mark.spec("D-5")
async def test_later_profiles_have_higher_sequences(tmp_path: Path) -> None:
    """Also two of one millisecond."""
    node, question = presence(tmp_path), encode_message(ProfileRequest())
    offer = Offer(NODE_KEY, {}, (), (), sign(WORKER, NODE))
    sequences = []
    for _ in range(20):
        node.renew(offer)
        await node.answer(cast(Stream, stream := FakeStream(question)))
        (reply,) = stream.sent
        assert isinstance(reply, ProfileReply)
        capability = verify_untrusted(CapabilityProfile, reply.capability, signer=NODE_KEY).record
        connectivity = verify_untrusted(ConnectivityProfile, reply.connectivity, signer=NODE_KEY).record
        assert capability.sequence == connectivity.sequence
        sequences.append(capability.sequence)
    assert sequences == sorted(set(sequences))


@pytest.mark.spec("D-9")
async def test_each_question_is_answered_as_of_now(tmp_path: Path) -> None:
    node, question = presence(tmp_path), encode_message(ProfileRequest())
    stream = FakeStream(question, question)
    await node.answer(cast(Stream, stream))
    node.renew(None)
    later = FakeStream(question)
    await node.answer(cast(Stream, later))
    replies = [message for message in (*stream.sent, *later.sent) if isinstance(message, ProfileReply)]
    assert [reply.worker_key is None for reply in replies] == [False, False, True]
    for reply in replies:
        capability = verify_untrusted(CapabilityProfile, reply.capability, signer=NODE_KEY)
        verify_untrusted(ConnectivityProfile, reply.connectivity, signer=NODE_KEY)
        assert verify_untrusted(Mandate, reply.mandate, signer=OWNER_KEY).id == capability.record.mandate


async def test_what_nobody_asks_for_is_not_signed(tmp_path: Path) -> None:
    """A connection that changes all the time costs a node nothing until somebody wants to know."""
    looked = 0

    def connection() -> Connection:
        nonlocal looked
        looked += 1
        return Connection()

    settings = config.parse({"state": str(tmp_path)}, tmp_path)
    offer = Offer(NODE_KEY, {}, (), (), sign(WORKER, NODE))
    authority, network = Authority(OWNER_KEY, OWNER), cast(Network, FakeNetwork({}))
    node = Presence(settings, NODE, authority, network, Availability(jobs_max=4), offer, connection=connection)
    before = looked
    for _ in range(5):
        node.refresh()
    assert looked == before
    question = encode_message(ProfileRequest())
    await node.answer(cast(Stream, FakeStream(question, question)))
    assert looked == before + 1


class Counted(SigningKey):
    """Signs, and counts how often."""

    signatures = 0

    def sign(self, message: bytes, encoder: Any = RawEncoder) -> SignedMessage:
        self.signatures += 1
        return super().sign(message, encoder)


async def test_what_is_announced_is_signed_once(tmp_path: Path) -> None:
    """And so is what whoever asks afterwards is told, under a higher number."""

    class Public(FakeNetwork):
        """It can be dialled, and somebody keeps what it puts."""

        def addresses(self) -> tuple[str, ...]:
            return ("/ip4/192.0.2.1/tcp/1",)

        async def put(self, key: str, value: bytes) -> int:
            await trio.lowlevel.checkpoint()
            kept.append(decode_profiles_untrusted(value, wall_ms()))
            return 1

    kept: list[Profiles] = []
    key, connection = Counted(bytes(NODE)), Connection(None, Link(("wifi",), True), 10, 20)
    settings = config.parse({"state": str(tmp_path), "kind": "host"}, tmp_path)
    node = Presence(
        settings, key, Authority(OWNER_KEY, OWNER), cast(Network, Public({})), Availability(jobs_max=4),
        Offer(NODE_KEY, {}, (), (), sign(WORKER, NODE)), connection=lambda: connection,
    )  # fmt: skip
    key.signatures = 0
    await node.announce()
    assert key.signatures == 2  # the two profiles
    question = encode_message(ProfileRequest())
    await node.answer(cast(Stream, stream := FakeStream(question, question)))
    assert key.signatures == 4
    (public,) = kept
    told = [verify_untrusted(ConnectivityProfile, each.connectivity, signer=NODE_KEY).record for each in stream.sent]  # type: ignore[union-attr]
    assert told[0] == told[1] and told[0].sequence > public.connectivity.record.sequence
    assert (told[0].link_kinds, told[0].up_kbit_per_s) == (("wifi",), 10)
    assert (public.connectivity.record.link_kinds, public.connectivity.record.up_kbit_per_s) == ((), None)
    assert public.capability.record.mandate == node.mandate.id


@pytest.mark.spec("D-10", "E-5")
@pytest.mark.parametrize(
    "frame", [encode_message(HeartbeatMessage()), encode_message(BlobRequest(BUNDLE)), b"", b"\xff"]
)
async def test_another_question_ends_the_stream_unanswered(tmp_path: Path, frame: bytes) -> None:
    stream = FakeStream(frame, encode_message(ProfileRequest()))
    with pytest.raises(RemoteProtocolError):
        await presence(tmp_path).answer(cast(Stream, stream))
    assert not stream.sent


def reply(
    mandate: Signed[Mandate] = MANDATE, capability: bytes = b"", connectivity: bytes = b"", worker_key: bytes = b""
) -> bytes:
    capability = capability or sign(replace(CAPABILITY, mandate=mandate.id), NODE).envelope
    connectivity = connectivity or sign(CONNECTIVITY, NODE).envelope
    worker_key = worker_key or sign(WORKER, NODE).envelope
    return encode_message(ProfileReply(mandate.envelope, capability, connectivity, worker_key, "ready", (), 0))


def mandated(key: SigningKey = OWNER, **changes: Any) -> Signed[Mandate]:
    return sign(replace(MANDATE.record, **changes), key)


def told(*witnesses: bytes) -> bytes:
    message = decode_message_untrusted(reply())
    assert isinstance(message, ProfileReply)
    return encode_message(replace(message, witnesses=witnesses))


def witness(key: SigningKey, owner: SigningKey, subject: bytes = NODE_KEY) -> bytes:
    public = bytes(key.verify_key)
    mandate = sign(replace(MANDATE.record, node=public, owner=bytes(owner.verify_key)), owner).envelope
    return sign(Witness(public, subject, mandate, NOW_MS, NOW_MS + 1000, 20, 1, 2, 3, 4), key).envelope


@pytest.mark.spec("D-26")
async def test_witnesses_count_once_for_each_owner_but_the_nodes_own() -> None:
    answer = told(
        witness(STRANGER, STRANGER),
        witness(AGENT, STRANGER),
        witness(AGENT, OWNER),
        witness(AGENT, AGENT, AGENT_KEY[::-1]),
    )
    _, (node,) = await asked({NODE_KEY: answer}, NODE_KEY)
    assert node and [each.witness for each in node.witnesses] == [STRANGER_KEY]


async def asked(answers: dict[bytes, bytes], *keys: bytes) -> tuple[Discovery, list[Node | None]]:
    async with trio.open_nursery() as nursery:
        discovery = Discovery(cast(Network, FakeNetwork(answers)), lambda: NOW_MS, nursery)
        return discovery, [await discovery.ask(key) for key in keys]


@pytest.mark.spec("D-12", "I-20")
async def test_a_node_that_proves_all_it_says_is_known_with_its_owner() -> None:
    discovery, (node,) = await asked({NODE_KEY: reply()}, NODE_KEY)
    assert node and node.owner == OWNER_KEY and node.worker_key
    assert discovery.nodes == {NODE_KEY: node}


@pytest.mark.spec("D-11", "I-15", "I-16", "I-20")
@pytest.mark.parametrize(
    "answer",
    [
        encode_message(BlobReply(None)),
        b"\xff",
        reply(capability=sign(CAPABILITY, STRANGER).envelope),
        reply(capability=sign(unchecked(CAPABILITY, expires_ms=NOW_MS + PROFILE_MS_MAX + 1), NODE).envelope),
        reply(capability=sign(replace(CAPABILITY, issued_ms=0, expires_ms=1), NODE).envelope),
        reply(connectivity=sign(CONNECTIVITY, STRANGER).envelope),
        reply(connectivity=sign(replace(CONNECTIVITY, node=STRANGER_KEY), NODE).envelope),
        reply(capability=sign(CAPABILITY, NODE).envelope, mandate=mandated(epoch=4)),
        reply(mandated(STRANGER)),
        reply(mandated(node=STRANGER_KEY)),
        reply(mandated(not_before_ms=0, expires_ms=1)),
        reply(worker_key=sign(WORKER, STRANGER).envelope),
        reply(worker_key=sign(replace(WORKER, node=STRANGER_KEY), NODE).envelope),
        reply(worker_key=sign(replace(WORKER, not_before_ms=0, expires_ms=1), NODE).envelope),
    ],
    ids=[
        "no profile", "noise", "a stranger's profile", "a profile for too long", "an old profile", "a stranger's connectivity",
        "another node's connectivity", "another mandate than the profile names", "a mandate by a stranger",
        "another node's mandate", "an old mandate", "a stranger's worker key", "another node's worker key",
        "an old worker key",
    ],
)  # fmt: skip
async def test_a_node_whose_answer_does_not_hold_is_dropped(answer: bytes) -> None:
    assert claimed_signer_untrusted(MANDATE.envelope) == OWNER_KEY
    discovery, (node,) = await asked({NODE_KEY: answer}, NODE_KEY)
    assert node is None and not discovery.nodes


@pytest.mark.spec("D-11", "I-18")
async def test_only_what_the_node_itself_named_voids_a_lower_epoch() -> None:
    lower, higher = mandated(epoch=2), mandated(epoch=9)
    answers = {NODE_KEY: reply(higher), STRANGER_KEY: reply(mandated(epoch=12))}
    async with trio.open_nursery() as nursery:
        discovery = Discovery(cast(Network, FakeNetwork(answers)), lambda: NOW_MS, nursery)
        assert await discovery.ask(NODE_KEY)
        # Somebody else shows a mandate for the same node, of a higher epoch: it does not count.
        assert await discovery.ask(STRANGER_KEY) is None
        assert await discovery.ask(NODE_KEY)
        answers[NODE_KEY] = reply(lower)
        assert await discovery.ask(NODE_KEY) is None


@pytest.mark.spec("I-18")
async def test_an_issuer_of_a_lower_epoch_is_void_for_all_of_its_owners_nodes() -> None:
    def issued(node: bytes, epoch: int) -> bytes:
        issuer = sign(Issuer(OWNER_KEY, AGENT_KEY, epoch, NOW_MS, NOW_MS + 1000), OWNER)
        key = NODE if node == NODE_KEY else STRANGER
        mandate = mandated(AGENT, node=node, issuer=issuer.envelope)
        return reply(
            mandate,
            sign(replace(CAPABILITY, node=node, mandate=mandate.id), key).envelope,
            sign(replace(CONNECTIVITY, node=node), key).envelope,
            sign(replace(WORKER, node=node), key).envelope,
        )

    answers = {NODE_KEY: issued(NODE_KEY, 3), STRANGER_KEY: issued(STRANGER_KEY, 2)}
    _, (alone,) = await asked(answers, STRANGER_KEY)
    assert alone  # nothing is wrong with it, as long as no higher epoch was seen
    async with trio.open_nursery() as nursery:
        discovery = Discovery(cast(Network, FakeNetwork(answers)), lambda: NOW_MS, nursery)
        assert await discovery.ask(NODE_KEY)
        assert await discovery.ask(STRANGER_KEY) is None
        answers[STRANGER_KEY] = issued(STRANGER_KEY, 3)
        assert await discovery.ask(STRANGER_KEY)


@pytest.mark.spec("D-6", "D-13")
async def test_whom_the_dht_names_is_asked_and_offered_only_if_it_answers() -> None:
    answers = {NODE_KEY: reply()}
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(answers, [NODE_KEY, OWNER_KEY])
        discovery = Discovery(cast(Network, network), lambda: NOW_MS, nursery)
        found = await discovery.find(BUNDLE, lambda nodes: False)
        assert [node.key for node in found] == [NODE_KEY] == [node.key for node in discovery.known(BUNDLE)]
        del answers[NODE_KEY]
        assert await discovery.find(BUNDLE, lambda nodes: False) == []
        assert discovery.known(BUNDLE) == []
        nursery.cancel_scope.cancel()


@pytest.mark.spec("D-13", "I-18")
async def test_whom_a_client_met_before_is_asked_and_offered_only_if_it_answers() -> None:
    book, answers = Book(), {NODE_KEY: reply(mandated(epoch=9))}

    async def found() -> list[bytes]:
        """By a client that begins with the book, and whom the DHT tells nothing."""
        async with trio.open_nursery() as nursery:
            network = FakeNetwork(answers)
            discovery = Discovery(cast(Network, network), lambda: NOW_MS, nursery, book)
            assert discovery.known(BUNDLE) == []
            nodes = [node.key for node in await discovery.find(BUNDLE, lambda nodes: False)]
            assert nodes == list(discovery.nodes)
            nursery.cancel_scope.cancel()
        return nodes

    assert await found() == []
    async with trio.open_nursery() as nursery:
        assert await Discovery(cast(Network, FakeNetwork(answers)), lambda: NOW_MS, nursery, book).ask(NODE_KEY)
    assert await found() == [NODE_KEY]
    answers[NODE_KEY] = reply(mandated(epoch=8))  # what voids it was seen in an earlier life
    assert await found() == []
    answers[NODE_KEY] = reply(mandated(epoch=9))
    assert await found() == []  # it would answer now, but nobody says so: it failed when it was last asked
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(answers, [NODE_KEY])
        assert await Discovery(cast(Network, network), lambda: NOW_MS, nursery, book).find(BUNDLE, lambda nodes: False)
    assert await found() == [NODE_KEY]


@pytest.mark.spec("D-15")
async def test_content_with_another_hash_is_not_used(tmp_path: Path) -> None:
    file = File(3, (b"\x05" * 32,))
    manifest = Manifest(
        "made-up", "none", "", "", ("call",), file, (), (), (), (Tensor("y", "float32", (1,)),),
        (Program("p", "call", 1, 1, 8, file, 0, 0),), file, None, 8, (),
        Tolerance(0, 0, 0, 0, 0, (), ""),
    )  # fmt: skip
    signed = sign(manifest, OWNER)
    tmp_path.joinpath("trust.toml").write_text(
        f'[[bundle]]\nname = "made-up"\ncid = "{cid(signed.id)}"\npublisher = "{OWNER_KEY.hex()}"\n'
    )
    _, (node,) = await asked({NODE_KEY: reply()}, NODE_KEY)
    assert node
    tampered = sign(replace(manifest, name="other"), OWNER).envelope
    for answer in (BlobReply(tampered), BlobReply(None), BlobReply(b""), HeartbeatMessage()):
        network = FakeNetwork({NODE_KEY: encode_message(answer)})
        wrong: list[bytes] = []
        bundles = Bundles(tmp_path, TrustList.load(tmp_path), cast(Network, network), wrong.append)
        with pytest.raises(NetworkError) as caught:
            await bundles.open("made-up", [node])
        assert caught.value.code is Code.PEER_UNREACHABLE
        assert wrong == ([NODE_KEY] if isinstance(answer, BlobReply) and answer.content is not None else [])
        assert not bundles._blobs.exists()


def capable(mandate: Signed[Mandate], **changes: Any) -> bytes:
    return sign(unchecked(CAPABILITY, mandate=mandate.id, **changes), NODE).envelope


SOLD = mandated(STRANGER, owner=STRANGER_KEY)
NEXT = mandated(epoch=4)
LONGER = mandated(expires_ms=NOW_MS + 2000)


@pytest.mark.parametrize(
    ("later", "proven"),
    [
        (reply(), None),
        (reply(capability=capable(MANDATE, sequence=6, jobs_max=9)), None),
        (reply(NEXT, capable(NEXT, sequence=6)), None),
        (reply(capability=capable(MANDATE, jobs_max=9)), Proven(Fault.EQUIVOCATION, NODE_KEY)),
        (
            reply(connectivity=sign(replace(CONNECTIVITY, loss_ppm=1), NODE).envelope),
            Proven(Fault.EQUIVOCATION, NODE_KEY),
        ),
        (reply(LONGER, capable(LONGER, sequence=6)), Proven(Fault.EQUIVOCATION, OWNER_KEY)),
        (reply(SOLD, capable(SOLD, sequence=6)), Proven(Fault.TWO_OWNERS, NODE_KEY)),
    ],
)
async def test_what_a_node_says_at_two_times_and_may_say_but_once_is_shown(later: bytes, proven: Proven | None) -> None:
    """Also by a client that was away meanwhile: its book has what was said before."""
    book, accused, answers = Book(), list[Any](), {NODE_KEY: reply()}
    async with trio.open_nursery() as nursery:
        network = cast(Network, FakeNetwork(answers))
        assert await Discovery(network, lambda: NOW_MS, nursery, book, accused.append).ask(NODE_KEY)
        answers[NODE_KEY] = later
        assert await Discovery(network, lambda: NOW_MS, nursery, book, accused.append).ask(NODE_KEY)
    assert [prove(records) for records in accused] == ([proven] if proven else [])
