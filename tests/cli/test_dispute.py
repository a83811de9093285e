"""`fallow dispute`: what judges have decided is said, whatever the node that is told of it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import pytest

from fallow.cli.dispute import _say, _tell
from fallow.node.network.seam import Network
from fallow.protocol.disputes import ANSWERS, Kind
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.refusals import RefuseMessage

from ..verifier.test_disputes import FEE, Scene, bound, decided

WHERE = ("/ip4/192.0.2.1/tcp/1",)


class Away:
    """The way to a node that cannot be reached."""

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        raise NetworkError(Code.PEER_UNREACHABLE, "It is away.")


class Refuses:
    """The way to a node that does not take it."""

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        return encode_message(RefuseMessage("bad_record", "It is not ours.", 0))


@pytest.mark.parametrize(("node", "why"), [(Away(), "It is away."), (Refuses(), "It is not ours.")])
async def test_a_node_that_does_not_take_a_decision_hides_nothing_of_it(
    capsys: pytest.CaptureFixture[str], node: Away | Refuses, why: str
) -> None:
    scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
    decision = decided(scene, "")
    found = bound(scene, [decision, decision])
    told, why_not = await _tell(cast(Network, node), WHERE, found)
    assert not told.arrived
    _say(found, told, why_not, as_json=False)
    said = capsys.readouterr()
    assert f"{decision.outcome}, by 2 judges" in said.out
    assert f"You owe {FEE // 3} ucr to each judge" in said.err
    assert why in said.err
    _say(found, told, why_not, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["outcome"], shown["told"], shown["why_not_told"]) == (decision.outcome, False, why)
