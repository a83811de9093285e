"""Every policy, carried out on real nodes: who is checked, who is caught, and what an executor can tell from it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio

from fallow.client import Answer, Mesh, connect
from fallow.client.auditing import Auditor
from fallow.client.history import Subject
from fallow.node.engine.bundles import BundleStore
from fallow.node.keys import load_or_create
from fallow.node.network.seam import Stream
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import CHECKER, EXECUTOR, peer_id, peer_key_untrusted
from fallow.protocol.messages import JOB_PROTOCOL
from fallow.testnet.local import Testnet
from fallow.testnet.plan import NodePlan, Plan
from fallow.testnet.record import LocalNode

CHAT, EMBED = "tiny-chat", "tiny-embed"
ODD, EVEN = "Hello!", "Hello"
"""Prompts of an odd and of an even number of tokens: `mood.py` is honest about the first, and lies about the second."""
MOODY = [sys.executable, "-P", str(Path(__file__).with_name("mood.py"))]
TOKENS = 70
"""Two full windows and a part."""
NEVER = "audit:1"
"""Of a million windows one is drawn."""


@asynccontextmanager
async def nodes(
    tmp_path: Path, home: Path, *extra: dict[str, Any], within_s: float = 170
) -> AsyncIterator[tuple[list[LocalNode], Mesh]]:
    """A node for each mapping, with these settings beside the usual ones; and a client that trusts three judges."""
    plans = tuple(NodePlan(f"{number}-host", "host", settings=more) for number, more in enumerate(extra))
    with trio.fail_after(within_s):
        async with (
            Testnet.start(tmp_path, plan=Plan(plans, (CHAT, EMBED)), home=home) as testnet,
            connect(testnet.bootstrap, home=home) as mesh,
        ):
            yield testnet.nodes, mesh


async def ask(mesh: Mesh, prompt: str, executors: Sequence[LocalNode], assurance: str, tokens: int = TOKENS) -> Answer:
    """An answer, read as it streams: what was read is the answer's text."""
    keys = [node.peer_id for node in executors]
    stream, text = mesh.stream(CHAT, prompt, max_tokens=tokens, executors=keys, assurance=assurance), ""
    async for chunk in stream:
        text = text[: chunk.length] + chunk.text
    assert text == stream.answer.text
    return stream.answer


def know(mesh: Mesh, home: Path, node: LocalNode, times: int) -> None:
    """The client has seen so many good results of this node."""
    history = mesh._team.auditor.history
    for bundle in map(BundleStore(home / "store").find, (CHAT, EMBED)):
        assert bundle is not None
        subject = Subject(peer_key_untrusted(node.peer_id), bytes.fromhex(node.owner), bundle.hash, "float32")
        for _ in range(times):
            history.passed(subject, EXECUTOR, 1)


def counts(answer: Answer) -> tuple[int, int]:
    return answer.checked, answer.windows


def trust(home: Path, owners: Sequence[bytes]) -> None:
    """These are judges. Nothing is disputed, and so nobody is there to be asked."""
    where = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(32))}"
    with (home / "trust.toml").open("a") as stream:
        for number, owner in enumerate(owners):
            stream.write(f'\n[[owner]]\nname = "judge {number}"\nkey = "{owner.hex()}"\nverifier = "{where}"\n')


async def test_who_is_checked_and_who_is_caught(tmp_path: Path, home: Path) -> None:
    moody = {"worker_command": MOODY, "sandbox": "off"}
    async with nodes(tmp_path, home, {}, {}, {}, moody) as ((first, second, third, bad), mesh):
        # Newcomers are always checked, by one other owner each; so is whoever has nothing to lose, however long its record.
        whole = await ask(mesh, EVEN, [first], "adaptive")
        assert counts(whole) == (3, 3)
        assert whole.verdict is not None
        assert (whole.verdict.outcome, whole.verdict.policy) == ("accepted", "adaptive:20000")
        assert [r.role for r in whole.receipts].count("checker") == 3
        know(mesh, home, first, 1_000)
        assert counts(await ask(mesh, EVEN, [first], "adaptive", 40)) == (2, 2)

        # What chance does not draw is paid as it is, and can be looked at later.
        honest = await ask(mesh, ODD, [bad], NEVER)
        assert counts(honest) == (0, 3)
        assert honest.verdict is not None
        assert honest.verdict.outcome == "accepted"
        lied = await ask(mesh, EVEN, [bad], NEVER)
        assert counts(lied) == (0, 3)
        assert lied.text != whole.text
        vectors = await mesh.embed(EMBED, ["one", "two"], assurance=NEVER, executors=[bad.peer_id])
        assert len(vectors.receipts) == 1

        # Now it is checked: the stream stops, another goes on, and what it got past us before is found.
        caught = await ask(mesh, EVEN, [bad, second], "adaptive")
        assert caught.text == whole.text
        assert caught.verdict is not None
        assert caught.verdict.outcome == "accepted"
        (fault,) = (found for found in caught.verdict.findings if not found.agrees)
        assert (fault.node, fault.role) == (peer_key_untrusted(bad.peer_id), EXECUTOR)
        assert [handover.from_node for handover in caught.handovers] == [bad.peer_id]
        assert "micro-nats" in caught.handovers[0].reason
        assert await mesh.looked_back() == 4  # three windows and the vectors; the honest answer stood
        assert mesh._team.late.looked_at == 7
        history = mesh._team.auditor.history
        assert history.faults(bytes.fromhex(bad.owner)) == 5
        again = await ask(mesh, ODD, [bad], "none")
        assert bad.peer_id not in {receipt.executor for receipt in again.receipts}

        # A race: whoever is first goes on, and the text is what it is anyway.
        raced = await ask(mesh, EVEN, [], "adaptive+hedge:3")
        assert raced.text == whole.text
        assert raced.verdict is not None
        assert raced.verdict.outcome == "accepted"
        both = await mesh.embed(EMBED, ["one", "two"], assurance="adaptive+hedge:2")
        right = await mesh.embed(EMBED, ["one", "two"], assurance="quorum:2/3", executors=[first.peer_id])
        assert both.vectors == right.vectors
        assert both.verdict is not None
        assert both.verdict.outcome == "accepted"

        # With `+anchor` somebody known has to agree; a committee has to be agreed on.
        know(mesh, home, third, 60)
        anchored = await ask(mesh, EVEN, [second], "quorum:2/2+anchor")
        assert anchored.verdict is not None
        assert (
            bytes.fromhex(third.owner) in anchored.verdict.anchors
            or bytes.fromhex(first.owner) in anchored.verdict.anchors
        )
        with pytest.raises(Refused) as refused:
            await ask(mesh, EVEN, [first], "committee:2/3", 40)
        assert refused.value.code is Code.UNSATISFIABLE_ASSURANCE


async def test_held_pay_lets_a_proven_node_pass_and_a_committee_judges(tmp_path: Path, new_home: Any) -> None:
    home = new_home()
    owners = [bytes(load_or_create(tmp_path / f"{n}-host" / "owner.key").verify_key) for n in range(4)]
    trust(home, owners)
    judges = {"arbiters": [owner.hex() for owner in owners]}
    async with nodes(tmp_path, home, judges, judges, judges, judges) as ((first, *_others), mesh):
        judged = await ask(mesh, EVEN, [first], "committee:2/3", 40)
        assert judged.verdict is not None
        assert judged.verdict.outcome == "accepted"
        checkers = {f.owner for f in judged.verdict.findings if f.role == CHECKER}
        assert checkers == set(owners) - {bytes.fromhex(first.owner)}
        texts = await mesh.embed(EMBED, ["one", "two"], assurance="committee:2/3", executors=[first.peer_id])
        assert texts.verdict is not None
        assert texts.verdict.outcome == "accepted"

        # Half of what was earned is held, and could be forfeited: a proven node's windows are drawn by chance from now on.
        know(mesh, home, first, 10**4)
        wallet, now_ms = mesh._team.desk.wallet, mesh._team.desk.now_ms()
        assert wallet.held_ucr(peer_key_untrusted(first.peer_id), now_ms) > 0
        for _ in range(12):
            await ask(mesh, EVEN, [first], "none")
        checked = [counts(await ask(mesh, EVEN, [first], "adaptive")) for _ in range(6)]
        assert sum(windows for _, windows in checked) == 18
        assert sum(each for each, _ in checked) < 18  # at the rate that follows, eighteen in a row come once in 10^20


async def test_a_wrong_window_takes_back_those_before_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moody = {"worker_command": MOODY, "sandbox": "off"}
    async with nodes(tmp_path, home, {}, {}, {}, moody) as ((first, second, _third, bad), mesh):
        whole = await ask(mesh, EVEN, [first], "quorum:2/2")
        drawn, real = iter([False, True]), Auditor.wants

        # Chance, for once, is told: the first window passes, the second is looked at; then it is as ever.
        def wants(self: Auditor, *given: Any) -> bool:
            return chosen if (chosen := next(drawn, None)) is not None else real(self, *given)

        monkeypatch.setattr(Auditor, "wants", wants)
        stream = mesh.stream(
            CHAT, EVEN, max_tokens=TOKENS, executors=[bad.peer_id, second.peer_id], assurance="adaptive"
        )
        verified, withdrawn = 0, False
        async for chunk in stream:
            withdrawn |= chunk.retracted and chunk.length < verified
            verified = max(verified, chunk.verified_length)
        answer = stream.answer
        assert withdrawn, "the reader is told that a window which had passed was wrong"
        assert answer.text == whole.text
        assert answer.verdict is not None
        assert answer.verdict.outcome == "accepted"
        (fault,) = (found for found in answer.verdict.findings if not found.agrees)
        assert fault.node == peer_key_untrusted(bad.peer_id)
        assert fault.due_ucr == 0


class _Recorded:
    """A stream, and what the client sent on it."""

    def __init__(self, stream: Stream, sent: list[bytes]) -> None:
        self._stream, self._sent = stream, sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def send(self, frame: bytes) -> None:
        self._sent.append(frame)
        await self._stream.send(frame)


class _Recording:
    """A network, and what was sent on each job's stream to a node."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.jobs: list[tuple[bytes, list[bytes]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    async def open(self, peer: bytes, protocol: str, *given: Any, **named: Any) -> Any:
        stream = await self._network.open(peer, protocol, *given, **named)
        if protocol != JOB_PROTOCOL:
            return stream
        self.jobs.append((peer, []))
        return _Recorded(stream, self.jobs[-1][1])


def form(value: object, name: str = "") -> object:
    """What there is to be seen of a message without its values: names, types, lengths, and records within."""
    if isinstance(value, dict):
        return {key: form(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [form(each) for each in value]
    if isinstance(value, bytes) and name in ("order", "channel", "voucher") and len(value) > 32:
        protected, unprotected, payload, signature = cbor2.loads(value).value
        return [form(cbor2.loads(protected)), form(unprotected), form(cbor2.loads(payload)), len(signature)]
    return len(value) if isinstance(value, bytes) else type(value).__name__


POLICIES = ("none", "quorum:2/3", "audit:500000", "adaptive", "adaptive+anchor", "committee:2/3")
"""Without a hedge, which shows: to whoever loses the race."""


async def test_an_executor_sees_the_same_under_every_policy(tmp_path: Path, new_home: Any) -> None:
    home = new_home()
    owners = [bytes(load_or_create(tmp_path / f"{n}-host" / "owner.key").verify_key) for n in range(4)]
    trust(home, owners)
    judges = {"arbiters": [owner.hex() for owner in owners]}
    async with nodes(tmp_path, home, judges, judges, judges, judges) as ((first, *_others), mesh):
        recording = _Recording(mesh._team.desk.network)
        desk = replace(mesh._team.desk, network=recording)  # type: ignore[arg-type]  # it has all that a network has
        mesh._team.desk = desk
        know(mesh, home, first, 1_000)
        await ask(mesh, ODD, [first], "none")  # the channel is there, and has its first voucher
        seen = {}
        for policy in POLICIES:
            recording.jobs.clear()
            await ask(mesh, EVEN, [first], policy)
            (sent,) = (sent for peer, sent in recording.jobs if peer == peer_key_untrusted(first.peer_id))
            said = [cbor2.loads(frame) for frame in sent]
            seen[policy] = [form(message) for message in said if message["t"] != "heartbeat"]
            recording.jobs.clear()
            await mesh.embed(EMBED, ["a", "b", "c"], assurance=policy, executors=[first.peer_id])
            sent = next(sent for peer, sent in recording.jobs if peer == peer_key_untrusted(first.peer_id))
            said = [cbor2.loads(frame) for frame in sent]
            seen[policy].append([form(message) for message in said if message["t"] != "heartbeat"])
        for policy, messages in seen.items():
            assert messages == seen["none"], policy
