"""Faults that prove themselves, passed on over real networks: who believes what, and what proves nothing costs its sender."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
import trio
from nacl.signing import SigningKey

from fallow.cli.verify import verify
from fallow.node.gossip import ALL_MIN, PER_PEER_MIN, Gossip
from fallow.node.known_faults import KEPT_MAX
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh
from fallow.node.network.standing import Fault as Blame
from fallow.node.spreading import FANOUT, METERED_BYTES_MIN, QUEUE_MAX, ROUND_S, SPREAD_S, TELLINGS_MAX, TRIES_MAX
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from fallow.protocol.evidence import Evidence, Fault, Proven
from fallow.protocol.holding import Held
from fallow.protocol.messages.assurance import EvidenceMessage, NotedMessage
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import ProfileRequest
from fallow.protocol.payment import Voucher
from fallow.protocol.streams import EVIDENCE_PROTOCOL

FINDER = SigningKey(b"\x41" * 32)
H = b"\x07" * 32
Start = Callable[..., Awaitable[Mesh]]


def retraction(number: int, *, accused: bytes | None = None, honest: bool = False, note: str = "") -> Signed[Evidence]:
    """Two vouchers of one payer, of which each takes back what the other promised."""
    payer = SigningKey(number.to_bytes(32, "big"))
    one, other = Voucher(H, H, 10, (Held(50, 1000),), 0), Voucher(H, H, 60 if honest else 20, (), 0)
    vouchers = tuple(sign(record, payer).envelope for record in (one, other))
    return sign(Evidence(str(Fault.RETRACTION), accused or bytes(payer.verify_key), vouchers, note), FINDER)


def accused(number: int) -> bytes:
    return bytes(SigningKey(number.to_bytes(32, "big")).verify_key)


@dataclass
class Blamed:
    """A place in the network of which only the standing counts."""

    faults: list[tuple[bytes, Blame]] = field(default_factory=list)

    def blame(self, peer: bytes, fault: Blame) -> None:
        self.faults.append((peer, fault))


@dataclass
class Here:
    """One who looks, with nobody around."""

    folder: Path
    concerns: frozenset[bytes] = frozenset()
    weighed: list[Proven] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = Blamed()
        self.gossip = self.again()

    def again(self) -> Gossip:
        return Gossip(
            self.network,  # type: ignore[arg-type]  # nothing else of it is used here
            self.folder, Random(1), self.weighed.append, self.concerns.__contains__,
        )  # fmt: skip

    def take(self, evidence: Signed[Evidence], peer: bytes = b"A" * 32) -> bytes:
        return self.gossip.take_untrusted(encode_message(EvidenceMessage(evidence.envelope)), peer)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*")) if self.folder.exists() else []


@pytest.fixture
async def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "faults")


@pytest.mark.spec("A-33")
async def test_a_fault_is_everywhere_though_not_everybody_met_who_found_it(
    tmp_path: Path, start_node: Start, nursery: trio.Nursery
) -> None:
    # A chain: each knows the one before it only.
    meshes: list[Mesh] = []
    found: list[Gossip] = []
    heard = [trio.Event() for _ in range(5)]
    for number in range(5):
        mesh = await start_node(number + 1)
        gossip = Gossip(mesh, tmp_path / str(number), Random(number), lambda _, event=heard[number]: event.set())  # type: ignore[misc]
        mesh.serve(EVIDENCE_PROTOCOL, gossip.serve)
        nursery.start_soon(gossip.run)
        if meshes:
            await mesh.connect(meshes[-1].addresses()[0])
        meshes.append(mesh)
        found.append(gossip)
    found[0].publish(retraction(3))
    with trio.fail_after(30):
        for event in heard:
            await event.wait()
    assert all(gossip.at_fault(accused(3)) for gossip in found)
    assert not any(gossip.at_fault(accused(4)) for gossip in found)
    (kept,) = (tmp_path / "4").iterdir()
    assert verify([kept]) == 0  # anybody can read it
    assert all(mesh._door.peers.points(str(id_of(other.key)), trio.current_time()) == 0
               for mesh in meshes for other in meshes)  # fmt: skip


@dataclass
class Links:
    """A place with many links; whoever is asked takes what it is told, unless it is deaf."""

    connected: list[bytes]
    deaf: frozenset[bytes] = frozenset()
    asked: list[bytes] = field(default_factory=list)
    sent: int = 0

    def peers(self) -> list[bytes]:
        return list(self.connected)

    async def request(self, peer: bytes, protocol: str, frame: bytes, *, passing: bool) -> bytes:
        assert passing, "to hear of a fault is no reason to stay connected"
        self.asked.append(peer)
        self.sent += len(frame)
        await trio.lowlevel.checkpoint()
        if peer in self.deaf:
            raise NetworkError(Code.STREAM_CLOSED, "it is busy")
        return frame


@pytest.fixture
async def links(tmp_path: Path, nursery: trio.Nursery) -> tuple[Links, Gossip]:
    """A hub of three dozen, and its gossip."""
    links = Links([number.to_bytes(32, "big") for number in range(36)])
    gossip = Gossip(links, tmp_path / "hub", Random(1))  # type: ignore[arg-type]  # nothing else of it is used here
    nursery.start_soon(gossip.run)
    return links, gossip


@pytest.mark.spec("A-33")
async def test_every_link_is_told_in_the_end_and_once(links: tuple[Links, Gossip], autojump_clock: object) -> None:
    network, gossip = links
    source, later = network.connected[5], b"L" * 32
    gossip.take_untrusted(encode_message(EvidenceMessage(retraction(3).envelope)), source)
    await trio.sleep(ROUND_S / 2)
    assert len(network.asked) == FANOUT
    await trio.sleep(len(network.connected) / FANOUT * ROUND_S)
    assert sorted(network.asked) == sorted({*network.connected} - {source})
    network.connected.append(later)
    await trio.sleep(2 * ROUND_S)
    assert network.asked[35:] == [later]
    await trio.sleep(SPREAD_S)
    network.connected.append(b"M" * 32)  # for whoever comes too late there is nothing to hear
    await trio.sleep(2 * ROUND_S)
    assert len(network.asked) == 36


@pytest.mark.spec("A-35")
async def test_nobody_is_told_more_than_it_would_read(links: tuple[Links, Gossip], autojump_clock: object) -> None:
    network, gossip = links
    network.connected, network.deaf = [b"A" * 32], frozenset({b"A" * 32})
    for number in range(PER_PEER_MIN):
        gossip.publish(retraction(number + 1))
    await trio.sleep(60)
    assert PER_PEER_MIN // 2 <= len(network.asked) <= PER_PEER_MIN
    await trio.sleep(SPREAD_S)
    assert len(network.asked) == TRIES_MAX * PER_PEER_MIN


@pytest.mark.spec("A-33", "A-34")
async def test_who_sends_what_proves_nothing_is_not_let_in_any_more(
    tmp_path: Path, start_node: Start, nursery: trio.Nursery
) -> None:
    honest, liar = await start_node(1), await start_node(2)
    gossip = Gossip(honest, tmp_path / "faults", Random(1))
    honest.serve(EVIDENCE_PROTOCOL, gossip.serve)
    nursery.start_soon(gossip.run)

    async def say(evidence: Signed[Evidence]) -> bytes:
        frame = encode_message(EvidenceMessage(evidence.envelope))
        return await liar.request(honest.key, EVIDENCE_PROTOCOL, frame, honest.addresses())

    good = retraction(3)
    assert decode_message_untrusted(await say(good)) == NotedMessage(good.id)
    for number in range(15):
        with pytest.raises(NetworkError):
            await say(retraction(10 + number, honest=True))
    assert not any(gossip.at_fault(accused(10 + number)) for number in range(15))
    assert honest._door.peers.banned_s(str(id_of(liar.key)), trio.current_time()) > 0
    assert gossip.at_fault(accused(3))


@pytest.mark.spec("A-34")
async def test_forged_unprovable_and_garbled_evidence_changes_nothing_but_its_senders_standing(here: Here) -> None:
    true = retraction(3)
    forged = Signed(true.record, true.signer, true.envelope[:-1] + bytes([true.envelope[-1] ^ 1]))
    for evidence in (forged, retraction(3, honest=True), retraction(3, accused=accused(4))):
        with pytest.raises(RemoteProtocolError):
            here.take(evidence)
    changed = replace(true.record, records=(true.record.records[0], true.record.records[1][:-1] + b"\x00"))
    with pytest.raises(RemoteProtocolError):
        here.take(sign(changed, FINDER))
    for frame in (b"", b"\xff", encode_message(ProfileRequest())):
        with pytest.raises(RemoteProtocolError):
            here.gossip.take_untrusted(frame, b"A" * 32)
    assert here.network.faults == [(b"A" * 32, Blame.BAD_RECORD)] * 7
    assert (here.files, here.weighed, here.gossip.at_fault(accused(3))) == ([], [], False)


@pytest.mark.spec("A-37")
async def test_a_fault_of_a_later_version_is_neither_believed_nor_told_nor_held_against_anybody(
    here: Here, links: tuple[Links, Gossip], autojump_clock: object
) -> None:
    later = sign(replace(retraction(3).record, fault="perjury"), FINDER)
    for _ in range(PER_PEER_MIN):  # as often as its sender likes, within the bound on all that it brings
        with pytest.raises(Refused) as caught:
            here.take(later)
        assert caught.value.code is Code.PROTOCOL_UNSUPPORTED
    assert (here.files, here.weighed, here.network.faults) == ([], [], [])
    with pytest.raises(Refused) as caught:
        here.take(later)
    assert (caught.value.code, here.network.faults) == (Code.BUSY, [(b"A" * 32, Blame.REFUSED_STREAM)])
    forged = Signed(later.record, later.signer, later.envelope[:-1] + bytes([later.envelope[-1] ^ 1]))
    with pytest.raises(RemoteProtocolError):
        here.take(forged, b"B" * 32)
    assert here.network.faults[1:] == [(b"B" * 32, Blame.BAD_RECORD)]
    network, gossip = links
    with pytest.raises(Refused):
        gossip.take_untrusted(encode_message(EvidenceMessage(later.envelope)), network.connected[0])
    await trio.sleep(SPREAD_S)
    assert network.asked == []


@pytest.mark.spec("A-34")
async def test_the_same_again_costs_whoever_repeats_itself(here: Here) -> None:
    one = retraction(3)
    here.take(one)
    assert here.network.faults == []
    here.take(one, b"B" * 32)  # another peer may well have heard of it too
    assert here.network.faults == []
    here.take(one)
    assert here.network.faults == [(b"A" * 32, Blame.STALE_RECORD)]
    here.take(retraction(3, note="worded otherwise"), b"C" * 32)
    assert [proven.accused for proven in here.weighed] == [accused(3)]
    assert len(here.files) == 1


@pytest.mark.spec("A-35")
async def test_one_peer_and_all_peers_bring_so_much_and_no_more(here: Here, autojump_clock: object) -> None:
    for number in range(PER_PEER_MIN):
        here.take(retraction(100 + number))
    with pytest.raises(Refused):
        here.take(retraction(99))
    assert here.network.faults == [(b"A" * 32, Blame.REFUSED_STREAM)]
    for number in range(ALL_MIN - PER_PEER_MIN):
        here.take(retraction(200 + number), number.to_bytes(32, "big"))
    with pytest.raises(Refused):
        here.take(retraction(300), b"B" * 32)
    assert len(here.weighed) == ALL_MIN
    await trio.sleep(60)
    here.take(retraction(99))
    assert here.gossip.at_fault(accused(99))


@pytest.mark.spec("A-35")
async def test_what_is_kept_is_bounded_and_what_concerns_somebody_here_goes_last(
    tmp_path: Path, autojump_clock: object
) -> None:
    here = Here(tmp_path / "faults", frozenset({accused(1)}))
    for number in range(1, KEPT_MAX + 3):
        here.take(retraction(number), number.to_bytes(32, "big"))
        await trio.sleep(1)
    assert len(here.files) == KEPT_MAX
    assert here.gossip.at_fault(accused(1))
    assert not here.gossip.at_fault(accused(2))
    again = here.again()
    assert again.at_fault(accused(1)) and again.at_fault(accused(KEPT_MAX + 2))


async def test_a_file_that_was_changed_proves_nothing(here: Here) -> None:
    here.take(retraction(3))
    (path,) = here.files
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert not here.again().at_fault(accused(3))


@pytest.mark.spec("A-35")
async def test_a_flood_of_others_faults_delays_the_true_one_and_costs_nobody(
    here: Here, autojump_clock: object
) -> None:
    here.concerns = frozenset({accused(2)})
    here.gossip = here.again()
    for number in range(ALL_MIN):
        here.take(retraction(100 + number), (number % 3).to_bytes(32, "big"))
    here.network.faults.clear()
    with pytest.raises(Refused) as caught:
        here.take(retraction(1))
    assert caught.value.code is Code.BUSY
    here.take(retraction(2))
    assert here.gossip.at_fault(accused(2)) and not here.gossip.at_fault(accused(1))
    await trio.sleep(60)
    here.take(retraction(1))
    assert here.gossip.at_fault(accused(1))
    assert here.network.faults == []


async def test_what_proves_nothing_uses_up_nothing_of_all(here: Here) -> None:
    for number in range(ALL_MIN):
        with pytest.raises(RemoteProtocolError):
            here.take(retraction(100 + number, honest=True), number.to_bytes(32, "big"))
    here.take(retraction(3))
    assert here.gossip.at_fault(accused(3))


async def test_a_fault_counts_though_it_cannot_be_kept(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    (tmp_path / "faults").write_text("no folder")
    links, weighed = Links([b"B" * 32]), list[Proven]()
    gossip = Gossip(links, tmp_path / "faults", Random(1), weighed.append)  # type: ignore[arg-type]  # as above
    nursery.start_soon(gossip.run)
    gossip.publish(retraction(3))
    await trio.sleep(1)
    assert (gossip.at_fault(accused(3)), len(weighed), links.asked) == (True, 1, [b"B" * 32])


async def test_what_cannot_be_read_is_passed_over_and_what_is_too_much_goes(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 5):
        here.take(retraction(number))
        os.utime(here.folder / f"{Fault.RETRACTION}-{accused(number).hex()}.cose", (number, number))
    gone = here.folder / f"{Fault.RETRACTION}-00.cose"
    gone.symlink_to("another process has forgotten it")
    monkeypatch.setattr("fallow.node.known_faults.KEPT_MAX", 2)
    here.concerns = frozenset({accused(1)})
    again = here.again()
    assert [again.at_fault(accused(number)) for number in range(1, 5)] == [True, False, False, True]
    assert len(here.files) == 2


@pytest.mark.spec("A-33")
async def test_who_told_it_is_not_told_though_much_has_come_since(
    links: tuple[Links, Gossip], autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.gossip.SAID_MAX", 1)
    network, gossip = links
    sources = network.connected[:5]
    for source in sources:
        gossip.take_untrusted(encode_message(EvidenceMessage(retraction(3).envelope)), source)
    await trio.sleep(SPREAD_S)
    assert sorted(network.asked) == network.connected[5:]


@pytest.mark.spec("A-35")
async def test_news_do_not_have_what_is_older_told_sooner(links: tuple[Links, Gossip], autojump_clock: object) -> None:
    network, gossip = links
    for number in range(1, 4):
        gossip.publish(retraction(number))
        await trio.sleep(ROUND_S / 5)
        assert len(network.asked) == number * FANOUT


@pytest.mark.spec("A-35")
async def test_what_is_told_is_bounded_for_each_fault_and_in_bytes(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    many = Links([number.to_bytes(32, "big") for number in range(TELLINGS_MAX + 50)])
    hub = Gossip(many, tmp_path / "many", Random(1))  # type: ignore[arg-type]  # as above
    nursery.start_soon(hub.run)
    hub.publish(retraction(1))
    await trio.sleep(SPREAD_S)
    assert len(many.asked) == TELLINGS_MAX
    told = []
    for metered in (False, True):
        links = Links([number.to_bytes(32, "big") for number in range(64)])
        gossip = Gossip(links, tmp_path / str(metered), Random(1), metered=metered.__bool__)  # type: ignore[arg-type]
        nursery.start_soon(gossip.run)
        for number in range(1, QUEUE_MAX + 1):
            gossip.publish(retraction(number))
        await trio.sleep(60)
        told.append(links.sent)
    assert told[0] > 2 * METERED_BYTES_MIN >= told[1] > METERED_BYTES_MIN / 2


async def test_before_it_ends_a_process_says_what_nobody_has_taken(tmp_path: Path, autojump_clock: object) -> None:
    links = Links([number.to_bytes(32, "big") for number in range(36)])
    gossip = Gossip(links, tmp_path / "faults", Random(1))  # type: ignore[arg-type]  # as above
    gossip.publish(retraction(3))
    await gossip.drain()
    assert len(links.asked) == FANOUT
    await gossip.drain()
    assert len(links.asked) == FANOUT
