"""Every policy, carried out on real nodes: who is checked, who is caught, and what an executor can tell from it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
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
from fallow.protocol.checks import Standing
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import CHECKER, EXECUTOR, peer_id, peer_key_untrusted
from fallow.protocol.streams import JOB_PROTOCOL
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


@pytest.mark.timeout(400)  # four nodes and some twenty jobs, perhaps beside other tests
async def test_who_is_checked_and_who_is_caught(tmp_path: Path, home: Path) -> None:
    moody = {"worker_command": MOODY, "sandbox": "off"}
    async with nodes(tmp_path, home, {}, {}, {}, moody, within_s=380) as ((first, second, third, bad), mesh):
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

        # Now it is checked: the stream stops, another goes on, and what it got past us before is found. What it alone has
        # confirmed as a checker is looked at, too.
        history = mesh._team.auditor.history
        rests = history.kept(bytes.fromhex(bad.owner), mesh._team.desk.now_ms())
        assert len([kept for _, kept in rests if kept.subject.owner == bytes.fromhex(bad.owner)]) == 7
        caught = await ask(mesh, EVEN, [bad, second], "adaptive")
        assert caught.text == whole.text
        assert caught.verdict is not None
        assert caught.verdict.outcome == "accepted"
        (fault,) = (found for found in caught.verdict.findings if not found.agrees)
        assert (fault.node, fault.role) == (peer_key_untrusted(bad.peer_id), EXECUTOR)
        assert [handover.from_node for handover in caught.handovers] == [bad.peer_id]
        assert "micro-nats" in caught.handovers[0].reason
        assert await mesh.looked_back() == 4  # three windows and the vectors; the honest answer stood
        assert mesh._team.late.looked_at == len(rests)
        assert history.faults(bytes.fromhex(bad.owner)) == 5
        stood = {r.signed.id for r in honest.receipts if r.role == EXECUTOR and r.signed.record.tokens}
        good = [bytes.fromhex(node.owner) for node in (first, second, third)]
        now = {receipt for owner in good for receipt, _ in history.kept(owner, mesh._team.desk.now_ms())}
        assert len(stood) == 3 and stood <= now, "what one other bore out rests on that one's word"
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
        for policy, outcome in (("none", None), ("quorum:2/3", "accepted"), ("audit:500000", "accepted")):
            raced = await ask(mesh, EVEN, [], f"{policy}+hedge:2")
            both = await mesh.embed(EMBED, ["one", "two"], assurance=f"{policy}+hedge:2")
            assert (raced.text, both.vectors) == (whole.text, right.vectors), policy
            assert [each.verdict and each.verdict.outcome for each in (raced, both)] == [outcome, outcome], policy

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


async def test_what_a_refuted_checker_alone_had_confirmed_is_looked_at_again(tmp_path: Path, home: Path) -> None:
    pair = {
        "worker_command": [sys.executable, "-P", "-m", "fallow.testnet.adversaries.colluder", "pair"],
        "sandbox": "off",
    }
    async with nodes(tmp_path, home, {}, {}, pair, pair) as ((first, second, bad, friend), mesh):
        wallet, late = mesh._team.desk.wallet, mesh._team.late
        honest = {peer_key_untrusted(node.peer_id) for node in (first, second)}
        wallet.distrusted |= honest  # so that only the friend can be asked
        made_up = await ask(mesh, ODD, [bad], "adaptive")
        assert counts(made_up) == (3, 3)
        assert made_up.verdict is not None and made_up.verdict.outcome == "accepted"
        wallet.distrusted -= honest

        # An anchor is asked first, and objects; of the two who are drawn then, the friend stands by it, and is outvoted.
        know(mesh, home, first, 60)
        caught = await ask(mesh, ODD, [bad, second], "adaptive")
        assert caught.verdict is not None and caught.text != made_up.text
        faulty = {found.node for found in caught.verdict.findings if not found.agrees}
        assert faulty == {peer_key_untrusted(node.peer_id) for node in (bad, friend)}
        assert await mesh.looked_back() == 3
        executors = {r.signed.id for r in made_up.receipts if r.role == EXECUTOR and r.signed.record.tokens}
        assert set(late.wrong) == executors, "what was checked, and confirmed by the friend alone, is wrong"


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
        # Beside it there may be a checker who was not waited for, once two had objected: silent, which is no fault.
        (fault,) = (found for found in answer.verdict.findings if found.standing == Standing.REFUTED)
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


DRAWN = {"nonce", "created_ms", "input_digest", "check_commitment", "worker_key", "receipt", "sealed_input"}
"""Of these only type and length are compared: chance or the clock fills them, or they name what has them in it."""
COUNTED = {"due_ucr", "held", "forfeited_ucr"}
"""In a voucher, which is the channel's sum: it grows from job to job, and with it the bytes that it takes."""


def seen_of(value: object, name: str = "") -> object:
    """What there is to be seen of a message: each value that the policy could have a hand in, and the length of the others."""
    if isinstance(value, dict):
        return {key: seen_of(each, key) for key, each in value.items()}
    if name in COUNTED:
        return type(value).__name__
    if isinstance(value, bytes) and name in ("order", "channel", "voucher") and len(value) > 32:
        protected, unprotected, payload, signature = cbor2.loads(value).value
        length = None if name == "voucher" else len(value)
        return [length, protected, seen_of(unprotected), seen_of(cbor2.loads(payload)), len(signature)]
    if name in DRAWN:
        return (type(value).__name__, len(value) if isinstance(value, bytes) else None)
    return [seen_of(each) for each in value] if isinstance(value, list) else value


def job_of(frames: Sequence[bytes]) -> list[object]:
    """All that one executor is told in one job, but that the client is there."""
    said = [cbor2.loads(frame) for frame in frames]
    return [seen_of(message) for message in said if message["t"] != "heartbeat"]


def test_what_is_compared_would_show_what_a_policy_writes_into_an_order() -> None:
    order = {"t": "order", "held_ppm": 500_000, "parameters": {"stop": ["x"]}, "nonce": b"12"}
    assert job_of([cbor2.dumps(order)]) == job_of([cbor2.dumps(order | {"nonce": b"34"})])
    for more in ({"policy": "none"}, {"held_ppm": 500_001}, {"parameters": {"stop": ["y"]}}, {"nonce": b"123"}):
        assert job_of([cbor2.dumps(order)]) != job_of([cbor2.dumps(order | more)])


POLICIES = ("none", "quorum:2/3", "audit:500000", "adaptive", "adaptive+anchor", "committee:2/3")
RACES = ("none+hedge:2", "quorum:2/3+hedge:2")
"""A race shows to whoever loses it, but not before it has."""


@pytest.mark.timeout(400)  # eighteen jobs, perhaps beside other tests
async def test_an_executor_sees_the_same_under_every_policy(tmp_path: Path, new_home: Any) -> None:
    home = new_home()
    owners = [bytes(load_or_create(tmp_path / f"{n}-host" / "owner.key").verify_key) for n in range(4)]
    trust(home, owners)
    judges = {"arbiters": [owner.hex() for owner in owners]}
    async with nodes(tmp_path, home, judges, judges, judges, judges, within_s=380) as ((first, *_others), mesh):
        recording = _Recording(mesh._team.desk.network)
        desk = replace(mesh._team.desk, network=recording)  # type: ignore[arg-type]  # it has all that a network has
        mesh._team.desk = desk
        know(mesh, home, first, 1_000)
        await ask(mesh, ODD, [first], "none")  # the channel is there, and has its first voucher
        first_key = peer_key_untrusted(first.peer_id)

        async def told(policy: str) -> list[list[object]]:
            """What the first node is told of a text, and of a call."""
            found = []
            for asks in (
                partial(ask, mesh, EVEN, [first], policy),
                partial(mesh.embed, EMBED, ["a", "b", "c"], assurance=policy, executors=[first.peer_id]),
            ):
                recording.jobs.clear()
                await asks()
                found.append(job_of(next(sent for peer, sent in recording.jobs if peer == first_key)))
            return found

        plain = await told("none")
        assert plain[0] and plain[1]
        for policy in POLICIES[1:]:
            assert await told(policy) == plain, policy
        for policy in RACES:
            for message, same in zip(await told(policy), plain, strict=True):
                until = [each["t"] for each in message if isinstance(each, dict)]
                whole = until.index("cancel") if "cancel" in until else len(same)
                assert message[:whole] == same[:whole], policy
