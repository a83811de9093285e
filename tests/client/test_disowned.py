"""A judge asks a node whether it stands by its receipt, over a real network: where the claimant says that it is, or, when it is
not there, where its own profile in the DHT says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from fallow.client.contesting import shown
from fallow.client.docket import Docket
from fallow.client.tribunal import Tribunal
from fallow.node.accounts import Accounts
from fallow.node.disputes import Disputes
from fallow.node.journal import Journal
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Network
from fallow.node.network.table_rules import profile_rules
from fallow.protocol.claims import Claim
from fallow.protocol.disputes import DISMISSED, UPHELD, Decision, Hearing, Kind, judges
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import content_hash, peer_id
from fallow.protocol.messages.assurance import DecisionReply, DisputeRequest, PleaReply
from fallow.protocol.messages.codec import Message, encode_message
from fallow.protocol.names import profile_key
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.published import Profiles
from fallow.protocol.streams import DISPUTE_PROTOCOL

from ..verifier.jobs import CLIENT, MANIFEST, NOW_MS, mandate
from ..verifier.test_disputes import OWNER, PAYEE, Scene, disputed
from ..verifier.test_grounds import CHANNEL, verifier_of

HERE = "/ip4/127.0.0.1/tcp/0"
PAYEE_KEY = bytes(PAYEE.verify_key)
NOWHERE = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(PAYEE_KEY)}"


async def nobody_is_told(party: bytes, reference: str, ucr: int) -> None:
    """There is no fee in these."""


@dataclass
class Bench:
    """A judge, the accused node, and whoever keeps the DHT for them: three hosts on this machine."""

    tribunal: Tribunal
    accused: Network
    journal: Journal
    scene: Scene = field(default_factory=lambda: Scene(Kind.DISOWNED))

    async def brings(self, *where: str) -> Decision:
        """What is decided when the claimant says that the node is there."""
        proof = shown(self.scene.claimed)
        dispute = disputed(Kind.DISOWNED, self.scene.writer, self.scene.receipt, shown=content_hash(proof), fee_ucr=0)
        reply = await self._says(DisputeRequest(dispute.envelope, None, proof, where, None))
        if isinstance(reply, PleaReply):  # the node was heard
            assert reply.plea is not None
            hearing = sign(Hearing(dispute.id, (reply.plea,)), CLIENT)
            reply = await self._says(DisputeRequest(dispute.envelope, None, b"", (), hearing.envelope))
        assert isinstance(reply, DecisionReply)
        return verify_untrusted(Decision, reply.decision, signer=bytes(self.tribunal.key.verify_key)).record

    async def _says(self, request: DisputeRequest) -> Message:
        return await self.tribunal.answer_untrusted(encode_message(request))

    async def publishes(self) -> None:
        """The node's profile, with its addresses, is in the DHT."""
        capability = CapabilityProfile(
            PAYEE_KEY, mandate(10, 10).id, 1, NOW_MS, NOW_MS + 60_000, None, "", ("executor",), (), (), (), 4, 0, 0, (),
        )  # fmt: skip
        connectivity = ConnectivityProfile(
            PAYEE_KEY,
            1,
            NOW_MS,
            NOW_MS + 60_000,
            self.accused.addresses(),
            (),
            None,
            0,
            None,
            None,
            None,
            None,
            None,
            None,
        )
        await self.accused.put(
            profile_key(PAYEE_KEY), Profiles(sign(capability, PAYEE), sign(connectivity, PAYEE)).encode()
        )

    def issues(self) -> None:
        """The receipt is in the node's books."""
        order: Signed[Any] = self.scene.writer.order
        self.journal.add_order(CHANNEL, order, NOW_MS)
        self.journal.add_receipt(self.scene.receipt, CHANNEL.id, Claim(1), NOW_MS)


@asynccontextmanager
async def hearing(folder: Path) -> AsyncIterator[Bench]:
    rules = profile_rules(lambda: NOW_MS)
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(open_network(b"\x21" * 32, [HERE], [], rules))
        join = list(keeper.addresses())
        # As clients the two keep no part of the table, and so do not meet by it, as a vehicle and a judge among many do not.
        accused = await stack.enter_async_context(open_network(bytes(PAYEE), [HERE], join, rules, mode="client"))
        judging = await stack.enter_async_context(open_network(b"\x22" * 32, [], join, rules, mode="client"))
        journal = stack.enter_context(closing(Journal(folder)))
        accounts = Accounts(journal, lambda: NOW_MS)
        accused.serve(DISPUTE_PROTOCOL, Disputes(PAYEE, OWNER, accounts, nobody_is_told).answer)
        docket = stack.enter_context(closing(Docket(folder / "docket.sqlite")))
        scene = Scene(Kind.DISOWNED)
        key, paper = verifier_of(sorted(judges(scene.writer.order, OWNER))[0])
        nothing = cast(Any, None)  # what a node says of its receipt is run by nobody
        tribunal = Tribunal(
            key, paper, nothing, frozenset({MANIFEST.id}), docket, judging, lambda: NOW_MS, accounts, nobody_is_told,
            answer_ms=1_000,
        )  # fmt: skip
        yield Bench(tribunal, accused, journal, scene)


@pytest.mark.spec("A-32")
@pytest.mark.parametrize(("issued", "outcome"), [(True, DISMISSED), (False, UPHELD)])
async def test_a_node_that_is_not_where_it_is_said_to_be_is_asked_where_it_says_itself(
    tmp_path: Path, issued: bool, outcome: str
) -> None:
    with trio.fail_after(120):
        async with hearing(tmp_path) as at:
            if issued:
                at.issues()
            with pytest.raises(Refused) as caught:  # it is nowhere: it may still be heard
                await at.brings(NOWHERE)
            assert caught.value.code is Code.TIMED_OUT
            await at.publishes()
            assert (await at.brings(NOWHERE)).outcome == outcome


async def test_a_node_is_asked_where_its_claimant_says_that_it_is_without_any_profile(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with hearing(tmp_path) as at:
            at.issues()
            assert (await at.brings(*at.accused.addresses())).outcome == DISMISSED
