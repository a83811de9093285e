"""What clients ask for, and what became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from ....client.answers import Answer
from ....client.draft import TextRequest
from ....client.functions import CallJob, CallRequest
from ....client.team import Team
from ....client.text import TextJob
from ....client.ungrouping import ungrouped
from ....protocol.errors import FallowError
from ....protocol.limits import PRICE_MAX_UCR
from ....protocol.policy import Policy
from ....protocol.work import Parameters, Work
from ....verifier.compare import numbers_of
from ...adversaries.customer import Outcome
from ..events.spreading import appearance
from ..scenario import FUNCTIONS, Assurance, Scenario
from ..scenario_file import ADAPTIVE
from . import model
from .bundles import SimBundle
from .cheats import attack
from .engine import result_of
from .log import Log

TOP_P_PPM: Final = 1_000_000
TEMPERATURE_MILLI: Final = 700
DEADLINE, UNEXPECTED = "deadline", "unexpected"
"""Why a job ended that has no code of its own: its reader waited no longer; something broke that is no `FallowError`."""


@dataclass(slots=True)
class Job:
    """One piece of work that a client asked for. Times are seconds since the beginning."""

    number: int
    client: int
    asked_s: float
    ended_s: float | None = None
    why: str = ""
    """The code of what kept it from a result; empty if it has one."""
    wrong: bool = False
    verified: bool = False
    first_token_s: float | None = None
    handovers_ms: tuple[int, ...] = ()

    @property
    def completed(self) -> bool:
        return self.ended_s is not None and not self.why

    @property
    def lost(self) -> bool:
        """It ended with neither a result nor a reason, or never did."""
        return self.ended_s is None or self.why.startswith(UNEXPECTED)


@dataclass
class Load:
    """The jobs of all clients, as they are asked for and end."""

    scenario: Scenario
    bundles: Sequence[SimBundle]
    log: Log
    judges: Mapping[bytes, str]
    """Addresses by owner."""
    jobs: list[Job] = field(default_factory=list)
    attacks: list[Outcome] = field(default_factory=list)
    """What dishonest clients got away with, or did not."""

    def __post_init__(self) -> None:
        found = {each.name: appearance(self.scenario, each)[1] for each in self.scenario.bundles}
        self._appears_s = {name: event.at_h * 3600 if event else 0.0 for name, event in found.items()}

    def asker(self, client: int, random: Random) -> Callable[[Team], Awaitable[None]]:
        """What asks for one client's share until the simulation's end, and returns when every job of it has ended."""
        return lambda team: self._ask(client, team, random)

    def attacker(self, client: int, name: str, random: Random) -> Callable[[Team], Awaitable[None]]:
        """What attacks as often as an honest client would ask, one time after another."""
        return lambda team: self._attack(client, name, team, random)

    async def _times(self, random: Random) -> AsyncIterator[float]:
        """Each moment, as it comes, at which one client asks for something."""
        per_s, at_s = self.scenario.load.jobs_per_hour / 3600 / self.scenario.load.clients, trio.current_time()
        while per_s > 0 and (at_s := at_s + random.expovariate(per_s)) < self.scenario.duration_s:
            await trio.sleep_until(at_s)
            yield at_s

    async def _attack(self, client: int, name: str, team: Team, random: Random) -> None:
        async for _ in self._times(random):
            try:
                outcomes = await attack(name, team, self._bundle(random).client, self.judges, random)
            except (FallowError, trio.TooSlowError) as error:
                why = str(error.code) if isinstance(error, FallowError) else DEADLINE
                self.log.write(client, "attack_failed", name, why)
                continue
            for each in outcomes:
                self.log.write(client, "attacked", each.trick, each.owed_ucr, each.paid_ucr, each.stopped_by or "-")
            self.attacks += outcomes

    async def _ask(self, client: int, team: Team, random: Random) -> None:
        async with trio.open_nursery() as nursery:
            async for at_s in self._times(random):
                bundle = self._bundle(random)
                if at_s < self._appears_s[bundle.given.name]:
                    continue  # nobody can ask for it yet
                job = Job(len(self.jobs), client, at_s)
                self.jobs.append(job)
                # What a job asks for does not depend on what becomes of those before it.
                nursery.start_soon(self._run, job, bundle, team, Random(random.getrandbits(64)))

    async def _run(self, job: Job, bundle: SimBundle, team: Team, random: Random) -> None:
        self.log.write(job.client, "asked", job.number)
        try:
            with trio.move_on_after(self.scenario.load.deadline_s) as limit:
                await self._work(job, bundle, team, random)
            if limit.cancelled_caught:
                job.why = DEADLINE
        except FallowError as error:
            job.why = str(error.code)
        except Exception as error:  # noqa: BLE001 - a checker says that it happened; the other jobs go on
            inner = ungrouped(error)
            job.why = str(inner.code) if isinstance(inner, FallowError) else f"{UNEXPECTED}:{type(inner).__name__}"
        job.ended_s = trio.current_time()
        self.log.write(job.client, "ended", job.number, job.why or "done", int(job.wrong))

    async def _work(self, job: Job, bundle: SimBundle, team: Team, random: Random) -> None:
        if self.scenario.load.workload == FUNCTIONS:
            await self._call(job, team, bundle, random)
        else:
            await self._generate(job, team, bundle, random)

    async def _generate(self, job: Job, team: Team, bundle: SimBundle, random: Random) -> None:
        tokens_in, tokens_out = self.scenario.tokens
        prompt = tuple(random.randrange(model.FIRST, model.VOCABULARY) for _ in range(tokens_in))
        seed = random.getrandbits(62)
        parameters = Parameters(tokens_out, TEMPERATURE_MILLI, TOP_P_PPM, seed)
        request = TextRequest(bundle.client, prompt, parameters, (), self._policy, PRICE_MAX_UCR, ())

        def seen(_: object) -> None:
            if job.first_token_s is None:
                job.first_token_s = trio.current_time() - job.asked_s

        answer: Answer = await TextJob(team, request, seen).run()
        job.handovers_ms = tuple(each.gap_ms for each in answer.handovers)
        job.verified = answer.verdict is not None
        job.wrong = answer.tokens != model.write(bundle.signed.id, prompt, tokens_out, seed, True)

    async def _call(self, job: Job, team: Team, bundle: SimBundle, random: Random) -> None:
        sequence = tuple(random.randrange(model.FIRST, model.VOCABULARY) for _ in range(32))
        request = CallRequest(bundle.client, Work((sequence,)), self._policy, PRICE_MAX_UCR, ())
        piece, verdict = await CallJob(team, request).run()
        job.first_token_s = trio.current_time() - job.asked_s
        job.verified = verdict is not None
        rows = numbers_of(piece)
        job.wrong = rows is None or any(abs(a - b) > 1e-6 for a, b in zip(rows[0], result_of(sequence), strict=True))

    def _bundle(self, random: Random) -> SimBundle:
        [bundle] = random.choices(self.bundles, [each.given.demand for each in self.bundles])
        return bundle

    @property
    def _policy(self) -> Policy:
        return policy_of(self.scenario.assurance)


def policy_of(assurance: Assurance) -> Policy:
    """As clients ask for it. Of adaptive audits the floor is the scenario's; all else is the code's own."""
    text = assurance.policy
    return Policy.parse(f"{ADAPTIVE}:{round(assurance.floor * 1_000_000)}" if text == ADAPTIVE else text)
