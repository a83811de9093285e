"""Checkers that stood by a lie are found out where it is looked at again: inside one text, and in the background."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fallow.client import Mesh
from fallow.client.auditing import Auditor
from fallow.protocol.identity import EXECUTOR, peer_key_untrusted
from fallow.testnet.record import LocalNode

from .test_policies import CHAT, EMBED, EVEN, ODD, TOKENS, ask, counts, know, nodes

UNDRAWN = "adaptive:1"
"""Where chance is told: by more, a verdict would now and then ask for a check that the client was told not to make."""
FRIENDS = {"worker_command": [sys.executable, "-P", str(Path(__file__).with_name("friends.py"))], "sandbox": "off"}


def key_of(node: LocalNode) -> bytes:
    return peer_key_untrusted(node.peer_id)


def owner_of(node: LocalNode) -> bytes:
    return bytes.fromhex(node.owner)


def faults(mesh: Mesh, node: LocalNode) -> int:
    """Of this very node, as this client has them on disk."""
    return sum(
        (owner, key) == (owner_of(node), key_of(node)) for owner, key, _, _ in mesh._team.auditor.history.all_faults()
    )


def told(monkeypatch: pytest.MonkeyPatch, wants: Callable[..., bool]) -> None:
    """Chance, for once, is told which results are checked."""
    monkeypatch.setattr(Auditor, "wants", wants)


@pytest.mark.timeout(400)  # four nodes, each with its worker
async def test_a_window_that_a_refuted_checker_alone_confirmed_is_checked_again_in_the_same_text(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(tmp_path, home, {}, {}, FRIENDS, FRIENDS, within_s=380) as ((first, second, bad, friend), mesh):
        whole = await ask(mesh, ODD, [first], "none")
        wallet, real, windows = mesh._team.desk.wallet, Auditor.wants, 0
        honest = {key_of(node) for node in (first, second)}
        wallet.distrusted |= honest  # so that the friend alone can be asked about the first window

        def wants(self: Auditor, *given: Any) -> bool:
            nonlocal windows
            windows += 1
            if windows == 2:  # and from the second one on, everybody; somebody known first
                wallet.distrusted -= honest
                know(mesh, home, first, 60)
            return real(self, *given)

        told(monkeypatch, wants)
        stream = mesh.stream(
            CHAT, ODD, max_tokens=TOKENS, executors=[bad.peer_id, second.peer_id], assurance="adaptive"
        )
        verified, withdrawn = 0, False
        async for chunk in stream:
            withdrawn |= chunk.retracted and chunk.length < verified
            verified = max(verified, chunk.verified_length)
        answer = stream.answer
        assert withdrawn, "the reader is told that a window which a checker had confirmed was wrong"
        assert answer.text == whole.text
        assert answer.verdict is not None and answer.verdict.outcome == "accepted"
        liars = {key_of(node) for node in (bad, friend)}
        assert {found.node for found in answer.verdict.findings if not found.agrees} == liars
        mine = [r for r in answer.receipts if r.executor == bad.peer_id and r.role == EXECUTOR and r.tokens]
        assert mine[0].paid_ucr > 0 and not any(receipt.paid_ucr for receipt in mine[1:])
        # The first window was checked twice: by the friend as it came, and by the others once the friend was refuted.
        assert answer.checked == answer.windows + 1
        assert min(faults(mesh, bad), faults(mesh, friend)) > 0


@pytest.mark.timeout(400)  # four nodes, each with its worker
async def test_checkers_who_are_refuted_by_a_look_back_are_at_fault_and_what_they_confirmed_is_looked_at(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(tmp_path, home, {}, {}, FRIENDS, FRIENDS, within_s=380) as ((first, second, bad, friend), mesh):
        wallet, late = mesh._team.desk.wallet, mesh._team.late
        honest = {key_of(node) for node in (first, second)}
        wallet.distrusted |= honest
        confirmed = await ask(mesh, ODD, [bad], "adaptive")  # by the friend alone
        assert counts(confirmed) == (3, 3)
        wallet.distrusted -= honest
        with monkeypatch.context() as chance:
            told(chance, lambda *_: False)
            unchecked = await ask(mesh, EVEN, [bad], UNDRAWN)
        assert counts(unchecked) == (0, 3)
        know(mesh, home, first, 60)
        assert faults(mesh, friend) == 0

        # A text: somebody known objects, the friend stands by it, and is outvoted. What it alone had confirmed is wrong, too.
        late.suspect(owner_of(bad))
        assert await mesh.looked_back() == 6
        lies = {r.signed.id for a in (confirmed, unchecked) for r in a.receipts if r.role == EXECUTOR and r.tokens}
        assert set(late.wrong) == lies
        assert faults(mesh, friend) == 1
        assert {key_of(bad), key_of(friend)} <= wallet.distrusted
        assert not faults(mesh, first) and not faults(mesh, second)

        # A function's result.
        wallet.distrusted -= {key_of(bad), key_of(friend)}
        with monkeypatch.context() as chance:
            told(chance, lambda *_: False)
            await mesh.embed(EMBED, ["one", "two"], assurance=UNDRAWN, executors=[bad.peer_id])
        late.suspect(owner_of(bad))
        assert await mesh.looked_back() == 7
        assert faults(mesh, friend) == 2
        assert key_of(friend) in wallet.distrusted
