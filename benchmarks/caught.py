"""Real adversaries on a real mesh: what a client that has never met them accepts, pays, and how soon it finds them.

    python benchmarks/caught.py [--runs N] [--only ROW]     needs tiny-chat (`fallow bundle build tiny-chat`)

Seven nodes of seven owners: four are honest, one lies (`testnet.adversaries.turncoat`), one is of its mind where that is
said, and one runs int8 weights. The policy is `adaptive`. Each run is a client with a new key, which remembers nothing.
`turned`: the node first gives it honest answers, so that it has a record and something to lose, and lies from then on;
`newcomer`: from its first word. A run ends when the node is not dealt with any more.

Then six nodes, three of which write nothing false and do not finish what they take (`closer`, `deserter`,
`deserter-at-once`): no fault of theirs is ever proven. Each run is a new client that asks for thirty texts of whomever it
chooses.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import jobs
import table
import trio

from fallow.client import Answer, Mesh, Rejected, connect
from fallow.node.config import default_home
from fallow.node.keys import load_or_create
from fallow.protocol.errors import FallowError
from fallow.protocol.identity import EXECUTOR, peer_id, peer_key_untrusted
from fallow.protocol.receipts import FINAL
from fallow.testnet.adversaries.turncoat import NAMES, seed_of
from fallow.testnet.local import Testnet
from fallow.testnet.plan import NodePlan, Plan
from fallow.testnet.record import LocalNode

BUNDLE = "tiny-chat"
WORKER = [sys.executable, "-P", "-m", "fallow.testnet.adversaries.turncoat"]
HONEST = 4
TOKENS = 70
"""Of an answer: two windows and a part."""
RECORD = 4
"""Honest answers of who turns bad, with twelve windows: ten make it no newcomer any more."""
ASKED_MAX = 30
"""Answers of a node that is not found."""
RUN_S = 300.0
FIRST = 10
"""Answers of one client after which it knows whom it deals with."""
LEAVING = ("closer", "deserter", "deserter-at-once")
PROMPTS = tuple(f"Go on with number {number}." for number in range(8))


@dataclass
class Told:
    """What came of all runs of one adversary."""

    runs: int = 0
    until: list[int] = field(default_factory=list)
    """Of each run in which it was found, its answers with a lie in them until then."""
    lied: int = 0
    """Windows with a lie in them, or after one, that it signed."""
    taken: int = 0
    """Of these, those that were paid when they came."""
    accepted: int = 0
    """Of these, those that still stood when all audits backwards were over."""
    paid_ucr: int = 0
    """For those."""
    held_ucr: int = 0
    """Of its pay, when it was found."""
    wrong_texts: int = 0
    """Answers that the reader was given as good, and are not what the model gives."""
    blamed: int = 0
    broken: int = 0
    """Runs that did not come to an end: the machine had no time for so many processes."""
    """Honest nodes that the client does not deal with any more."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=18, help="of each row")
    parser.add_argument("--only", default="", help="rows that begin with these words, alone: `liar-truncates, turned`")
    options = parser.parse_args()
    runs = options.runs
    jobs.installed(BUNDLE)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        leaving = any(name.startswith(options.only) for name in LEAVING)
        if not options.only or not leaving:
            trio.run(_all, Path(folder), runs, options.only)
        if leaving:
            trio.run(_leaving, Path(folder), runs)
    print(f"\nIn {time.perf_counter() - began:.0f} s.")


async def _all(folder: Path, runs: int, only: str) -> None:
    owners = [bytes(load_or_create(folder / "net" / f"{n}-host" / "owner.key").verify_key) for n in range(HONEST + 3)]
    judges = {"arbiters": [owner.hex() for owner in owners[:HONEST]]}
    turncoat = {**judges, "worker_command": WORKER}
    friend = {**turncoat, "worker_command": [*WORKER, "colluder"]}
    plans = [NodePlan(f"{n}-host", "host", settings=judges) for n in range(HONEST)]
    plans += [
        NodePlan(f"{HONEST}-host", "host", settings=turncoat),
        NodePlan(f"{HONEST + 1}-host", "host", settings=friend),
    ]
    plans.append(NodePlan(f"{HONEST + 2}-host", "host", "quantiser", settings=judges))
    async with Testnet.start(folder / "net", plan=Plan(tuple(plans), (BUNDLE,))) as net:
        honest, (bad, _friend, quantiser) = net.nodes[:HONEST], net.nodes[HONEST:]
        table.head(
            "adversary", "runs, found, broken off",
            "windows with a lie: signed, paid when they came, that stand at the end", "wrong answers accepted",
            "answers with a lie until found: mean, most", "paid for lies, held of its pay when found",
            "honest nodes blamed",
        )  # fmt: skip
        clients = _Clients(folder, owners[:HONEST], net)
        true = await _true_texts(clients, honest[0])
        rows = [(name, bad, seed_of(name), first) for name in NAMES for first in (0, RECORD)]
        for name, node, seed, honest_first in (*rows, ("quantiser", quantiser, 0, 0)):
            row, told = f"{name}, {'turned' if honest_first else 'newcomer'}", Told()
            if not row.startswith(only):
                continue
            for _ in range(runs):
                await _try(told, _run(clients, node, seed, honest_first, true, honest, told))
            _show(row, told)


@dataclass
class Begun:
    """What one node, or each honest one, had of all texts."""

    name: str
    first: int = 0
    """Texts that it began, of the first of each client."""
    later: int = 0
    tokens: int = 0
    paid_ucr: int = 0
    gaps_ms: list[int] = field(default_factory=list)
    """That readers waited when it had left, between two tokens."""


async def _leaving(folder: Path, runs: int) -> None:
    plans = [NodePlan(f"{n}-host", "host") for n in range(HONEST - 1)]
    plans += [NodePlan(f"{HONEST - 1 + n}-host", "host", name) for n, name in enumerate(LEAVING)]
    async with Testnet.start(folder / "leaving", plan=Plan(tuple(plans), (BUNDLE,))) as net:
        clients, honest = _Clients(folder / "leaving", [], net), Begun("each of 3 honest nodes")
        told = {node.peer_id: Begun(node.adversary) if node.adversary else honest for node in net.nodes}
        true, wrong, broken = await _true_texts(clients, net.nodes[0]), 0, 0
        for _ in range(runs):
            async with connect(clients.bootstrap, home=clients.home()) as mesh:
                for number in range(ASKED_MAX):
                    prompt = PROMPTS[number % len(PROMPTS)]
                    try:
                        answer = await mesh.generate(BUNDLE, prompt, max_tokens=TOKENS, assurance="adaptive")
                    except FallowError as error:
                        print(f"a text broke: {error}", file=sys.stderr)
                        broken += 1
                        continue
                    wrong += answer.text != true[prompt]
                    _note(answer, told, number < FIRST)
    shown = [honest, *(each for each in told.values() if each is not honest)]
    print(f"\n{runs} clients, {ASKED_MAX} texts each: {wrong} wrong, {broken} broken off.\n")
    table.head("node", f"texts begun: of the first {FIRST}, of the others", "tokens written, paid for each",
               "its readers waited, median")  # fmt: skip
    for each in shown:
        nodes = HONEST - 1 if each is honest else 1
        table.cells(
            each.name,
            f"{each.first / nodes / runs / FIRST:.1%}, {each.later / nodes / runs / (ASKED_MAX - FIRST):.1%}",
            f"{each.tokens / nodes:.0f}, {each.paid_ucr / max(each.tokens, 1):.2f} ucr",
            f"{median(each.gaps_ms):.0f} ms" if each.gaps_ms else "-",
        )


def _note(answer: Answer, told: dict[str, Begun], early: bool) -> None:
    """Who began the text, who wrote what of it, and who was waited for."""
    written = [receipt for receipt in answer.receipts if receipt.role == EXECUTOR]
    began = told[answer.handovers[0].from_node if answer.handovers else written[0].executor]
    began.first += early
    began.later += not early
    for receipt in written:
        told[receipt.executor].tokens += receipt.tokens
        told[receipt.executor].paid_ucr += receipt.paid_ucr
    for handover in answer.handovers:
        told[handover.from_node].gaps_ms.append(handover.gap_ms)


class _Clients:
    """Clients that have nothing in common but the bundles and whom they trust."""

    def __init__(self, folder: Path, judges: list[bytes], net: Testnet) -> None:
        self._folder, self._judges, self._net, self._begun = folder, judges, net, 0

    def home(self) -> Path:
        self._begun += 1
        home = self._folder / f"client-{self._begun}"
        home.mkdir()
        (home / "store").symlink_to(default_home() / "store")
        nowhere = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(32))}"
        trust = default_home() / "trust.toml"
        with (home / "trust.toml").open("w") as stream:
            stream.write(trust.read_text() if trust.exists() else "")
            for number, key in enumerate(self._judges):
                stream.write(f'\n[[owner]]\nname = "judge {number}"\nkey = "{key.hex()}"\nverifier = "{nowhere}"\n')
        return home

    @property
    def bootstrap(self) -> tuple[str, ...]:
        return self._net.bootstrap


async def _true_texts(clients: _Clients, node: LocalNode) -> dict[str, str]:
    async with connect(clients.bootstrap, home=clients.home()) as mesh:
        return {prompt: (await _ask(mesh, prompt, node, 0, "none")).text for prompt in PROMPTS}


async def _ask(mesh: Mesh, prompt: str, node: LocalNode, seed: int, assurance: str = "adaptive") -> Answer:
    return await mesh.generate(
        BUNDLE, prompt, max_tokens=TOKENS, seed=seed, assurance=assurance, executors=[node.peer_id]
    )


async def _try(told: Told, run: Awaitable[None]) -> None:
    try:
        await run
        told.runs += 1
    except (FallowError, trio.TooSlowError) as error:
        print(f"a run broke: {error}", file=sys.stderr)
        told.broken += 1


async def _run(
    clients: _Clients,
    node: LocalNode,
    seed: int,
    honest_first: int,
    true: dict[str, str],
    honest: list[LocalNode],
    told: Told,
) -> None:
    key = peer_key_untrusted(node.peer_id)
    lies: dict[bytes, int] = {}
    ends_early = seed in (seed_of("liar-truncates"), seed_of("liar-stops"))  # what it wrote before is true
    with trio.fail_after(RUN_S):
        async with connect(clients.bootstrap, home=clients.home()) as mesh:
            wallet = mesh._team.desk.wallet
            for number in range(honest_first):
                await _ask(mesh, PROMPTS[number % len(PROMPTS)], node, 0)
            for number in range(ASKED_MAX):
                prompt = PROMPTS[number % len(PROMPTS)]
                held_ucr = wallet.held_ucr(key, mesh._team.desk.now_ms())
                try:
                    answer: Answer | Rejected = await _ask(mesh, prompt, node, seed)
                    told.wrong_texts += isinstance(answer, Answer) and answer.text != true[prompt]
                except Rejected as rejected:
                    answer = rejected
                for receipt in answer.receipts:
                    record = receipt.signed.record
                    lie = record.tokens and (record.end == FINAL or not ends_early)
                    if lie and (receipt.executor, receipt.role) == (node.peer_id, EXECUTOR):
                        lies[receipt.signed.id] = receipt.paid_ucr
                if key in wallet.distrusted:
                    told.until.append(number + 1)
                    told.held_ucr += held_ucr
                    break
            await mesh.looked_back()
            wrong = set(mesh._team.late.wrong)
            told.blamed += sum(peer_key_untrusted(each.peer_id) in wallet.distrusted for each in honest)
    told.lied += len(lies)
    told.taken += sum(paid > 0 for paid in lies.values())
    told.accepted += sum(paid > 0 and receipt not in wrong for receipt, paid in lies.items())
    told.paid_ucr += sum(lies.values())


def _show(name: str, told: Told) -> None:
    until = sorted(told.until) or [0]
    table.cells(
        name,
        f"{told.runs}, {len(told.until)}, {told.broken}",
        f"{told.lied}, {told.taken}, {told.accepted}",
        str(told.wrong_texts),
        f"{mean(until):.1f}, {until[-1]}",
        f"{told.paid_ucr / max(told.runs, 1):.0f}, {told.held_ucr / max(len(told.until), 1):.0f} ucr a run",
        str(told.blamed),
    )


if __name__ == "__main__":
    main()
