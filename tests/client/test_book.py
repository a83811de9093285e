"""A client that comes back: by the nodes that it met, with what it learned of them, without those that are gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from fallow.client import connect
from fallow.node import control
from fallow.node.book import BOOK, Book
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.identity import peer_key_untrusted
from fallow.testnet.local import Testnet
from fallow.testnet.record import LocalNode

CHAT = "tiny-chat"
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


async def noted(node: LocalNode, peer: LocalNode) -> None:
    """The node has its book on disk, and the peer in it."""
    while True:
        with closing(Book(Path(node.folder) / BOOK)) as book:
            if book.get(peer_key_untrusted(peer.peer_id)):
                return
        await trio.sleep(0.1)


@asynccontextmanager
async def again(node: LocalNode) -> AsyncIterator[dict[str, object]]:
    """The node, started anew from its state; what it says once it is ready."""
    command = [sys.executable, "-P", "-m", "fallow.node", "--config", str(Path(node.folder) / "node.toml")]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    async with process.stdin, process.stdout:
        assert await process.stdout.receive_some()
        yield await trio.to_thread.run_sync(control.request, Path(node.folder), control.STATUS)
    await process.wait()  # with its standard input, it ends


async def test_a_client_comes_back_by_the_nodes_that_it_met(tmp_path: Path, home: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "store").symlink_to(home / "store")
    shutil.copy(home / "trust.toml", mine / "trust.toml")
    with trio.fail_after(150):
        async with Testnet.start(tmp_path / "net", nodes=3, bundles=(CHAT,), home=home) as testnet:
            first, second, third = testnet.nodes
            async with connect(testnet.bootstrap, home=mine) as mesh:
                assert len(await mesh.nodes(CHAT)) == 3
                await mesh.generate(CHAT, "Hello", max_tokens=8, assurance="none", executors=[second.peer_id])
            await noted(first, second)
            await testnet.kill(first)

            for bootstrap in (list(testnet.bootstrap), [NOBODY], []):
                async with connect(bootstrap, home=mine) as mesh:
                    found = {node.peer_id for node in await mesh.nodes(CHAT)}
                    assert found == {second.peer_id, third.peer_id}
                    assert (await mesh.generate(CHAT, "Hello", max_tokens=8, assurance="none")).usage.completion_tokens
            book = Book(mine / BOOK)
            gone, worked = (book.get(peer_key_untrusted(node.peer_id)) for node in (first, second))
            book.close()
            assert gone and gone.gone and gone.answers < gone.tries
            assert worked and not worked.gone and worked.jobs_done >= 1 and worked.rtt_us

            async with again(first) as status:  # a node too comes back by its book: it was given nobody to join by
                assert status["bootstrap"] == []
                assert int(str(status["peers"])) >= 1
            await testnet.kill(second)
            await testnet.kill(third)
    for bootstrap in ([NOBODY], []):
        with trio.fail_after(60), pytest.raises(NetworkError, match="known from before") as caught:
            async with connect(bootstrap, home=mine):
                pass
        assert caught.value.code is Code.BOOTSTRAP_UNREACHABLE
