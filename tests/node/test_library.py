"""A node that lacks what it is told to serve fetches it from its peers, serves it, and gives it to others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
import trio

from fallow.node.config import parse
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.library import Library
from fallow.node.log import EventLog
from fallow.node.network.seam import Network, Provider, Stream
from fallow.node.swarm import PATIENCE_S
from fallow.protocol.errors import Code
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.messages.codec import Message
from fallow.protocol.messages.discovery import BlobReply
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.names import holder_key
from fallow.protocol.work import Work

from ..fetch.line import Line
from ..moments import look_again
from .conftest import Home, Start, client_network, failure, launch
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))


@pytest.fixture
def bare(tmp_path: Path) -> BundleStore:
    """A store with nothing in it."""
    return BundleStore(tmp_path / "bare")


async def test_a_node_without_the_bundle_fetches_it_and_answers_a_job(
    start: Start, home: Home, bare: BundleStore, tmp_path: Path
) -> None:
    source = start()
    node = start(
        tmp_path / "node", store=str(bare.root), bundles=["tiny-chat"], fetch_bundles=["tiny-embed"],
        bootstrap=[source.address],
    )  # fmt: skip
    bare.open(home.chat).verify()
    async with client_network([node.address]) as network:
        with trio.fail_after(60):
            profile = await profile_of(network, peer_key_untrusted(node.ready["peer_id"]))
            talk = await Conversation.begin(network, Ask(Payer(profile), home.chat, PROMPT, max_tokens=8))
            await talk.run()
            assert len(talk.tokens) == 8
            # What it only keeps for others it holds, too, and says so.
            embed = home.store.open(home.embed).hash
            while not await network.find(holder_key(embed)):
                await look_again()
    events = {event["event"]: event for event in node.events("fetched")}
    assert events["fetched"]["bytes"] > 0
    assert node.command("status")["fetching"] == []


async def test_what_comes_late_is_served_by_the_next_worker(
    start: Start, home: Home, bare: BundleStore, tmp_path: Path
) -> None:
    shutil.copytree(home.store.open(home.embed).path, bare.root / "bundles" / home.embed)
    source = start()
    node = start(
        tmp_path / "node", store=str(bare.root), bundles=["tiny-chat", "tiny-embed"], bootstrap=[source.address]
    )
    async with client_network([node.address]) as network:
        chat, key = home.store.open(home.chat).hash, peer_key_untrusted(node.ready["peer_id"])
        with trio.fail_after(90):
            profile = await profile_of(network, key)
            while profile.capability.served_bundle(chat) is None or profile.reply.state != "ready":
                profile = await profile_of(network, key)
            talk = await Conversation.begin(network, Ask(Payer(profile), home.chat, PROMPT, max_tokens=8))
            await talk.run()
    assert len(talk.tokens) == 8
    node.events("fetching", "fetched", "worker_ready")


def test_a_node_that_may_not_fetch_says_what_is_missing(
    start: Start, home: Home, bare: BundleStore, tmp_path: Path
) -> None:
    address = start().address
    for settings in ({"fetch": "never", "bootstrap": [address]}, {"bootstrap": []}):
        complaint = failure(tmp_path / "node", home, store=str(bare.root), **settings)
        assert "bundle_not_built" in complaint


def test_a_node_stops_in_order_while_it_fetches(start: Start, home: Home, bare: BundleStore, tmp_path: Path) -> None:
    """Its allowance is a byte a second: it will not be done before it is stopped."""
    address = start().address
    process = launch(tmp_path / "node", home, store=str(bare.root), bootstrap=[address], max_bytes_sec_down=1)
    assert process.stderr is not None
    assert "fetching tiny-chat, tiny-embed" in process.stderr.readline()
    process.terminate()
    said, complaint = process.communicate(timeout=30)
    assert (process.returncode, said, complaint) == (0, "", "")
    assert bare.list() == ()


def test_a_node_whose_store_is_beyond_its_limit_clears_it_at_its_start(
    home: Home, bare: BundleStore, tmp_path: Path
) -> None:
    for cid in (home.chat, home.embed):
        shutil.copytree(home.store.open(cid).path, bare.root / "bundles" / cid)
    table = {
        "state": str(tmp_path / "state"),
        "bundles": ["tiny-chat"],
        "home": str(home.path),
        "store": str(bare.root),
    }
    tmp_path.joinpath("state").mkdir()
    for limit, left in ((2**40, {home.chat, home.embed}), (1, {home.chat})):
        library = Library(parse(table | {"store_bytes_max": limit}, tmp_path), EventLog(tmp_path / "state"))
        library.open()
        assert {bundle.cid for bundle in bare.list()} == left
        library.close()


class Crowd:
    """A network with one source: of one bundle it has no place for us, the other it gives."""

    def __init__(self, given: Bundle) -> None:
        self._given = given

    async def find(self, key: str, take: Callable[[Provider], None]) -> None:
        await trio.lowlevel.checkpoint()
        take(Provider(bytes(32), ()))

    async def provide(self, key: str) -> None:
        await trio.lowlevel.checkpoint()

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        await trio.lowlevel.checkpoint()
        return cast(Stream, Line(self._answer))

    def _answer(self, wanted: bytes) -> Message:
        if (content := self._given.chunk(wanted)) is None:
            return RefuseMessage(Code.BUSY.value, "not now", 5000)
        return BlobReply(content)


async def test_a_bundle_whose_sources_are_busy_holds_up_no_other(
    home: Home, bare: BundleStore, tmp_path: Path, autojump_clock: object
) -> None:
    (tmp_path / "state").mkdir()
    table = {
        "state": str(tmp_path / "state"), "home": str(home.path), "store": str(bare.root),
        "bundles": ["tiny-chat"], "fetch_bundles": ["tiny-embed"], "lan": True,
    }  # fmt: skip
    library = Library(parse(table, tmp_path), EventLog(tmp_path / "state"))
    library.open()
    network = Crowd(home.store.open(home.embed))
    async with aclosing(library.arrivals(cast(Network, network))) as arrivals:
        assert (await anext(arrivals)).cid == home.embed
    (waited_s,) = re.findall(r"none gave anything for (\d+) s", library.missing["tiny-chat"])
    assert PATIENCE_S <= int(waited_s) < 2 * PATIENCE_S
    library.close()
