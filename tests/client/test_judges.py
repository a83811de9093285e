"""Whom a client names in its orders as its judges."""

from __future__ import annotations

from pathlib import Path

import trio
from nacl.signing import SigningKey

from fallow.client import connect
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules


async def test_only_who_can_be_asked_is_a_judge_and_whoever_is_trusted_an_anchor(tmp_path: Path) -> None:
    """A dispute before judges of whom the client cannot ask what there is to answer would be lost by silence."""
    heard, unheard = (bytes(SigningKey.generate().verify_key) for _ in range(2))
    seed, rules = bytes(SigningKey.generate()), profile_rules(wall_ms)
    with trio.fail_after(60):
        async with open_network(seed, ["/ip4/127.0.0.1/tcp/0"], [], rules) as known:
            (address,) = known.addresses()
            (tmp_path / "trust.toml").write_text(
                f'[[owner]]\nname = "heard"\nkey = "{heard.hex()}"\nverifier = "{address}"\n'
                f'[[owner]]\nname = "unheard"\nkey = "{unheard.hex()}"\n'
            )
            async with connect([address], home=tmp_path) as mesh:
                assert mesh._team.desk.judges == {heard}
                assert mesh._team.auditor.anchors == {heard, unheard}
