"""What a client keeps of a bundle that it had to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client.bundles import Bundles, ClientBundle
from fallow.client.nodes import Node
from fallow.node.network.seam import Network
from fallow.node.trust import TrustList
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.identity import cid
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.discovery import BlobReply

JOBS = 16
"""Side by side, as those of a gateway that has just been started."""
OWNER = SigningKey(bytes([1] * 32))
FILE = File(3, (b"\x05" * 32,))
BUNDLE = sign(
    Manifest(
        "made-up", "none", "", "", ("call",), FILE, (), (), (), (Tensor("y", "float32", (1,)),),
        (Program("p", "call", 1, 1, 8, FILE, 0, 0),), None, None, 8, (), Tolerance(0, 0, 0, 0, 0, (), ""),
    ),
    OWNER,
)  # fmt: skip


class Serving:
    """A network whose one node gives the bundle to all who ask at the same moment."""

    def __init__(self) -> None:
        self._asked = 0
        self._all = trio.Event()

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        self._asked += 1
        if self._asked == JOBS:
            self._all.set()
        await self._all.wait()
        return encode_message(BlobReply(BUNDLE.envelope))


class Somebody:
    """As much of a node as fetching looks at."""

    key, addresses = bytes(32), ()


def bundles(home: Path, network: object) -> Bundles:
    home.mkdir(exist_ok=True)
    entry = f'name = "made-up"\ncid = "{cid(BUNDLE.id)}"\npublisher = "{bytes(OWNER.verify_key).hex()}"\n'
    (home / "trust.toml").write_text(f"[[bundle]]\n{entry}")
    return Bundles(home, TrustList.load(home), cast(Network, network))


async def fetched(found: Bundles) -> list[ClientBundle]:
    """What each of the jobs gets."""
    opened: list[ClientBundle] = []

    async def job() -> None:
        opened.append(await found.open("made-up", [cast(Node, Somebody())]))

    async with trio.open_nursery() as nursery:
        for _ in range(JOBS):
            nursery.start_soon(job)
    return opened


@pytest.mark.parametrize("home", range(8))
async def test_jobs_side_by_side_fetch_the_same_bundle_and_keep_it_once(home: int, tmp_path: Path) -> None:
    with trio.fail_after(30):
        opened = await fetched(bundles(tmp_path, Serving()))
        assert [each.hash for each in opened] == [BUNDLE.id] * JOBS
        assert [path.name for path in (tmp_path / "blobs").iterdir()] == [BUNDLE.id.hex()]
        kept = await bundles(tmp_path, None).open("made-up", ())
        assert kept.signed == BUNDLE


async def test_what_cannot_be_kept_is_of_use_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("no folder can be made here")
    with trio.fail_after(30):
        assert {each.hash for each in await fetched(bundles(tmp_path, Serving()))} == {BUNDLE.id}
