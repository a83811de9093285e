"""A client against six real nodes, one of them a liar: whatever happens to a node, the answer is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from fallow.client import Answer, Mesh, connect
from fallow.client.wallet import Wallet
from fallow.node.earnings import earnings
from fallow.node.keys import load_or_create
from fallow.protocol.checks import Standing
from fallow.protocol.errors import Code, FallowError
from fallow.testnet.local import Testnet
from fallow.testnet.record import LocalNode

CHAT, EMBED = "tiny-chat", "tiny-embed"
TOKENS = 100
"""Three full windows and a part."""


@asynccontextmanager
async def six_nodes(tmp_path: Path, home: Path) -> AsyncIterator[tuple[Testnet, Mesh, LocalNode, list[LocalNode]]]:
    """A network, a client that joined by its first node, the liar, and the honest ones."""
    with trio.fail_after(170):
        async with (
            Testnet.start(tmp_path / "net", nodes=6, liars=1, bundles=(CHAT, EMBED), home=home) as testnet,
            connect(testnet.bootstrap, home=home) as mesh,
        ):
            (liar,) = (node for node in testnet.nodes if node.liar)
            yield testnet, mesh, liar, [node for node in testnet.nodes if not node.liar]


async def ask(
    mesh: Mesh, executors: Sequence[LocalNode], act: Callable[[], Awaitable[None]] | None = None, **options: str
) -> Answer:
    """An answer, read as it streams; `act` is called once, in mid-sentence. What was read is the answer's text."""
    stream = mesh.stream(CHAT, "Hello", max_tokens=TOKENS, executors=[node.peer_id for node in executors], **options)
    text, chunks = "", 0
    async for chunk in stream:
        text, chunks = text[: chunk.length] + chunk.text, chunks + 1
        if act is not None and chunks == 40:
            await act()
    assert text == stream.answer.text
    return stream.answer


async def test_a_text_survives_whatever_happens_to_its_node(tmp_path: Path, home: Path) -> None:
    async with six_nodes(tmp_path, home) as (testnet, mesh, liar, (bootstrap, second, third, fourth, fifth)):
        whole = await ask(mesh, [second], assurance="none")
        assert whole.verdict is None
        assert len(whole.tokens) == TOKENS

        lied = await ask(mesh, [liar, second])
        assert lied.text == whole.text
        assert lied.verdict is not None
        assert lied.verdict.outcome == "accepted"
        (fault,) = (found for found in lied.verdict.findings if found.standing == Standing.REFUTED)
        assert (fault.role, fault.owner.hex(), fault.due_ucr) == ("executor", liar.owner, 0)
        assert fault.evidence
        assert "micro-nats" in fault.reason
        again = await ask(mesh, [liar])
        assert liar.peer_id not in {receipt.executor for receipt in again.receipts}

        killed = await ask(mesh, [third, second], lambda: testnet.kill(third))
        assert killed.text == whole.text
        assert [handover.from_node for handover in killed.handovers] == [third.peer_id]
        assert killed.verdict is not None
        assert killed.verdict.outcome == "accepted"

        async def freeze() -> None:
            await testnet.freeze(fourth)

        frozen = await ask(mesh, [fourth, second], freeze)
        assert frozen.text == whole.text
        assert [handover.from_node for handover in frozen.handovers] == [fourth.peer_id]

        gone = await ask(mesh, [bootstrap, second], lambda: testnet.kill(bootstrap), assurance="quorum:2/2")
        assert gone.text == whole.text

        driven = await ask(mesh, [fifth, second], lambda: testnet.drive(fifth), assurance="none")
        assert driven.text == whole.text
        assert all(receipt.paid_ucr == receipt.amount_ucr for receipt in driven.receipts)

        testnet.thaw(fourth)

    # Nodes that live have what was signed for them, although one was frozen when it was: leaving, the client tried again.
    with closing(Wallet(home / "wallet.db", load_or_create(home / "keys" / "client"))) as wallet:
        owed = {owner.hex(): ucr for owner, ucr in wallet.owed_by_owner().items()}
    assert liar.owner not in owed
    for node in (second, fourth, fifth):
        assert sum(row.paid_ucr for row in earnings(node.folder)) == owed[node.owner]


async def test_functions_stops_and_refusals(tmp_path: Path, home: Path) -> None:
    async with six_nodes(tmp_path, home) as (_testnet, mesh, liar, honest):
        vectors = await mesh.embed(
            EMBED, ["parked", "driving"], executors=[liar.peer_id, honest[0].peer_id, honest[1].peer_id]
        )
        right = await mesh.embed(EMBED, ["parked", "driving"], executors=[node.peer_id for node in honest[1:4]])
        assert vectors.verdict is not None
        assert vectors.verdict.outcome == "accepted"
        assert [found.node for found in vectors.verdict.findings if found.standing == Standing.REFUTED] == [
            receipt.signed.signer for receipt in vectors.receipts if receipt.executor == liar.peer_id
        ]
        assert all(receipt.paid_ucr == 0 for receipt in vectors.receipts if receipt.executor == liar.peer_id)
        assert vectors.vectors == right.vectors

        whole = await ask(mesh, [honest[0]])
        stop = whole.text[20:23]
        stopped = await mesh.generate(CHAT, "Hello", max_tokens=TOKENS, stop=[stop])
        assert stopped.finish_reason == "stop"
        assert stopped.text == whole.text[: whole.text.find(stop)]
        assert len(stopped.tokens) < TOKENS

        one = await mesh.generate(CHAT, "Hello", max_tokens=40, temperature=0.8, top_p=0.9, seed=7)
        two = await mesh.generate(CHAT, "Hello", max_tokens=40, temperature=0.8, top_p=0.9, seed=7)
        assert one.text == two.text != whole.text[: len(one.text)]
        assert one.verdict is not None
        assert all(found.agrees for found in one.verdict.findings)

        async for _ in (abandoned := mesh.stream(CHAT, "Hello", max_tokens=TOKENS)):
            await abandoned.aclose()
            break

        for code, request in (
            (Code.UNKNOWN_NAME, lambda: mesh.generate("no-such-bundle", "Hello")),
            (Code.INPUT_TOO_LONG, lambda: mesh.generate(CHAT, "Hello " * 2000)),
            (Code.PRICE_TOO_HIGH, lambda: mesh.generate(CHAT, "Hello", price_max_ucr=1, assurance="none")),
            (Code.PRICE_TOO_HIGH, lambda: mesh.generate(CHAT, "Hello", price_max_ucr=1)),
            (Code.PRICE_TOO_HIGH, lambda: mesh.embed(EMBED, ["Hello"], price_max_ucr=1)),
            (Code.BAD_CONFIG, lambda: mesh.generate(CHAT, "Hello", seed=-1)),
            (Code.BAD_CONFIG, lambda: mesh.generate(CHAT, "Hello", stop=[""])),
            (Code.BAD_CONFIG, lambda: mesh.generate(CHAT, "half a pair: \ud800")),
            (Code.BAD_CONFIG, lambda: mesh.embed(EMBED, [""])),
            (Code.UNSATISFIABLE_ASSURANCE, lambda: mesh.generate(CHAT, "Hello", assurance="quorum:9/12")),
            (Code.UNSATISFIABLE_ASSURANCE, lambda: mesh.generate(CHAT, "Hello", assurance="most")),
            (Code.TOO_LARGE, lambda: mesh.embed(EMBED, [])),
            (Code.INPUT_TOO_LONG, lambda: mesh.embed(EMBED, ["a " * 5000])),
        ):
            with pytest.raises(FallowError) as caught:
                await request()  # type: ignore[no-untyped-call]
            assert caught.value.code is code


async def test_an_unreachable_bootstrap_is_said(home: Path) -> None:
    address = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    for addresses in ([], [address]):
        with trio.fail_after(60), pytest.raises(FallowError) as caught:
            async with connect(addresses, home=home):
                pass
        assert caught.value.code is Code.BOOTSTRAP_UNREACHABLE
