"""Three verifiers, nodes and a client, all real processes or this one: started once, since each has a worker to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client import Answer, Mesh
from fallow.client.contesting import Contested, answer, bring, claim, exchange, to_answer
from fallow.client.desk import Desk
from fallow.client.telling import Told, tell_again
from fallow.node.debts import debts
from fallow.node.earnings import earnings
from fallow.node.journal import Journal
from fallow.node.keys import load_or_create
from fallow.node.log import wall_ms
from fallow.node.paid import Payment
from fallow.protocol.disputes import BY_PAYER, Decided, Decision, Dispute, Kind
from fallow.protocol.envelope import Signed
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.messages.assurance import DisputeRequest, PleaReply
from fallow.testnet.record import LocalNode

from .test_policies import nodes

JUDGES = 3
ANSWER_MS = 60_000
"""For who answers: a loaded machine has to get that far before the time is over."""
SILENT_MS = 3_000
"""Where nobody answers, and that is waited for; no judge takes less."""
FEE = 9

Again = Callable[[], Awaitable[Decided]]


@contextmanager
def verifiers(folder: Path, home: Path, *more: str) -> Iterator[list[tuple[str, str, Path]]]:
    """Owner, address and state directory of each of three verifiers."""
    with ExitStack() as stack:
        started = []
        for number in range(JUDGES):
            state = folder / f"judge-{number}"
            state.mkdir(parents=True)
            config = state / "verifier.toml"
            config.write_text(f'state = "{state}"\nhome = "{home}"\nbundles = ["tiny-chat"]\n')
            run = ["verifier", "run", "--config", str(config), "--json", *more]
            words = [sys.executable, "-P", "-m", "fallow.cli", *run]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            started.append((process, state))
        said = []
        for process, state in started:
            assert process.stdout is not None
            text = ""
            while not text.rstrip().endswith("}"):
                line = process.stdout.readline()
                assert line, "the verifier ended"
                text += line
            told = json.loads(text)
            said.append((told["owner"], told["addresses"][0], state))
        yield said


@dataclass
class Court:
    """A client, nodes, and the judges that both trust."""

    mesh: Mesh
    nodes: list[LocalNode]
    judges: dict[bytes, str]
    states: list[Path]
    """Of the judges."""
    home: Path
    minutes: int = 0
    """By which what is told again is later each time."""

    @property
    def payer(self) -> SigningKey:
        return self.desk.key

    @property
    def desk(self) -> Desk:
        return self.mesh._team.desk

    def records(self, given: Answer, node: LocalNode, role: str = "executor") -> tuple[Contested, list[Signed[Any]]]:
        """The last receipt of a node under an answer, and all the records of it, with the channel."""
        channel = self.desk.wallet.channel_to(peer_key_untrusted(node.peer_id))
        assert channel is not None
        known = {one.id: one for one in given.proof.records}
        own = [paid.signed for paid in given.receipts if (paid.executor, paid.role) == (node.peer_id, role)]
        assert own, (node.name, given.handovers, [(paid.executor, paid.role) for paid in given.receipts])
        receipt = own[-1]
        return Contested(channel.channel, known[receipt.record.order], receipt), [*known.values(), channel.channel]

    async def claim(
        self,
        kind: Kind,
        at: Contested,
        proof: bytes,
        node: LocalNode,
        fee: int = 0,
        where: tuple[str, ...] | None = None,
        *,
        answer_ms: int = ANSWER_MS,
    ) -> tuple[Signed[Dispute], Again]:
        """The dispute, and how to bring it (again)."""
        key = self.payer if kind in BY_PAYER else load_or_create(Path(node.state) / "node.key")
        dispute = claim(kind, at, proof, key, self.desk.now_ms(), fee_ucr=fee, answer_ms=answer_ms)
        addresses = node.addresses if where is None else where

        async def again() -> Decided:
            desk = self.desk
            return await bring(desk.network, self.judges, at, dispute, proof, key, desk.now_ms(), addresses=addresses)

        return dispute, again

    async def plead(self, dispute: Signed[Dispute], *proofs: bytes) -> None:
        """The payer finds the dispute at the judges, and answers: each of them otherwise, if there are several proofs."""
        for number, address in enumerate(self.judges.values()):
            found = await to_answer(self.desk.network, address, bytes(self.payer.verify_key))
            assert [one.id for one in found] == [dispute.id]
            proof = proofs[number % len(proofs)]
            plea = answer(dispute.id, proof, self.payer)
            request = DisputeRequest(dispute.envelope, plea.envelope, proof, (), None)
            assert await exchange(self.desk.network, address, request) == PleaReply(plea.envelope)

    async def say(self, kind: str, contested: Contested, *more: str, fee: int = FEE) -> dict[str, Any]:
        """What `fallow dispute` prints, or its error."""
        terms = ("--fee", str(fee), "--answer-s", str(ANSWER_MS // 1000), "--json")
        words = [sys.executable, "-P", "-m", "fallow.cli", "dispute", kind, contested.receipt.id.hex(), *more, *terms]
        env = {**os.environ, "FALLOW_HOME": str(self.home)}
        done = await trio.run_process(words, env=env, capture_stdout=True, capture_stderr=True, check=False)
        text = done.stdout or done.stderr
        return json.loads(text) if text.lstrip().startswith(b"{") else {"error": {"code": text.decode()}}

    async def told(self) -> list[Told]:
        """What this process tells of what others have kept, when it is due again."""
        self.minutes += 1
        return await tell_again(replace(self.desk, now_ms=lambda: wall_ms() + self.minutes * 60_000))

    def owed(self) -> list[int]:
        """What each judge is owed, by whomever."""
        return [sum(row.open_ucr for row in debts(state)) for state in self.states]

    def paid(self) -> None:
        """Every judge has been paid by whoever owes it."""
        for state in self.states:
            rows = debts(state)
            with closing(Journal(state)) as books:
                for row in rows:
                    if not row.open_ucr:
                        continue
                    once = os.urandom(32)
                    books.add_payment(Payment(once, row.payer, "manual", row.open_ucr, 0, once.hex(), wall_ms()))


@asynccontextmanager
async def court(tmp_path: Path, home: Path, *more: dict[str, Any]) -> AsyncIterator[Court]:
    with verifiers(tmp_path, home, "--answer-s", str(SILENT_MS // 1000)) as judges:
        with (home / "trust.toml").open("a") as stream:
            for number, (owner, address, _) in enumerate(judges):
                stream.write(f'\n[[owner]]\nname = "judge {number}"\nkey = "{owner}"\nverifier = "{address}"\n')
        agreed = {"arbiters": [owner for owner, _, _ in judges]}
        settings = [{**agreed, **each} for each in more]
        async with nodes(tmp_path / "net", home, *settings, within_s=580) as (running, mesh):
            addresses = {bytes.fromhex(owner): address for owner, address, _ in judges}
            yield Court(mesh, running, addresses, [state for *_, state in judges], home)


async def eventually(again: Again) -> Decided:
    """What is decided once the time to answer is over."""
    while True:
        try:
            return await again()
        except Refused as refused:
            if refused.code is not Code.TIMED_OUT:
                raise
            await trio.sleep(refused.retry_after_ms / 1000)


async def waiting(again: Again) -> None:
    """The accused is heard first."""
    with pytest.raises(Refused) as caught:
        await again()
    assert caught.value.code is Code.TIMED_OUT


def said(decided: Decided) -> Decision:
    assert len(decided.decisions) >= 2
    assert len({one.signer for one in decided.decisions}) == len(decided.decisions)
    return decided.decisions[0].record


def earned(node: LocalNode) -> int:
    return sum(row.owed_ucr for row in earnings(Path(node.state)))
