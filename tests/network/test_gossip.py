"""Faults that prove themselves, passed on over real networks: who believes what, and what proves nothing costs its sender."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
import trio
from nacl.signing import SigningKey

from fallow.cli.verify import verify
from fallow.node.gossip import ALL_MIN, KEPT_MAX, PER_PEER_MIN, Gossip
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh
from fallow.node.network.standing import Fault as Blame
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import NetworkError, Refused, RemoteProtocolError
from fallow.protocol.evidence import Evidence, Fault, Proven
from fallow.protocol.messages import (
    EVIDENCE_PROTOCOL,
    EvidenceMessage,
    NotedMessage,
    ProfileRequest,
    decode_message_untrusted,
    encode_message,
)
from fallow.protocol.payment import Voucher

FINDER = SigningKey(b"\x41" * 32)
H = b"\x07" * 32
Start = Callable[..., Awaitable[Mesh]]


def retraction(number: int, *, accused: bytes | None = None, honest: bool = False, note: str = "") -> Signed[Evidence]:
    """Two vouchers of one payer, of which each takes back what the other promised."""
    payer = SigningKey(number.to_bytes(32, "big"))
    one, other = Voucher(H, H, 10, 50, 0, 1000), Voucher(H, H, 60 if honest else 20, 0, 0, 0)
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
    for number in range(ALL_MIN):
        here.take(retraction(200 + number), number.to_bytes(32, "big"))
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
