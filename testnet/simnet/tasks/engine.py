"""The seam's `Engine` without a worker: what it says comes from `model`, and when, from rates that were measured.

Jobs share the machine as slots of one batch do: of SmolLM2 on two cores four slots wrote 1.95 times as much as one, eight
2.96 and sixteen 3.62 (benchmarks/README.md, `decode.py`). One piece has `PIECE_TOKENS` tokens; the worker sends each token.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Final

import trio

from ....node.engine.answers import Answer, OpenJob
from ....node.engine.ended import Ended
from ....node.engine.messages import AHEAD_PIECES_MAX, DONE, EOS, LENGTH, EngineJob, EnginePiece, Rates, Served
from ....node.engine.sealing import PieceSealer
from ....protocol.bundle import GENERATE, SCORE
from ....protocol.errors import Code, EngineError, RemoteProtocolError
from ....protocol.limits import WINDOW_TOKENS
from ....protocol.work import (
    Input,
    Piece,
    Work,
    decode_input_untrusted,
    decode_work_untrusted,
    transcript_next,
    transcript_start,
)
from . import model
from .characters import HONEST, Character
from .sealing import open_openly

PIECE_TOKENS: Final = 4
"""Of one piece, but for the first, which has one: where the fourth token is, a piece ends, and so it does where a window does.
The real worker sends each token; four, and a simulated hour takes a third of the time."""
KEPT_MAX: Final = 16
"""Texts whose beginnings need not be read again, of all clients (`engine.prefixes`): what some hundred megabytes hold."""
BATCH: Final = ((1, 1.0), (4, 1.95), (8, 2.96), (16, 3.62))
"""Slots, and how many times one slot they write together."""
UNEVEN: Final = (0.9, 1.25)
"""A step takes so many times its usual time, by chance: the measured medians' spread on a quiet machine."""
START_S: Final = (1.2, 2.5)
"""From the start of a worker until it takes jobs; programs lie compiled on the disk."""
COLUMNS: Final = 8
"""Numbers in one result of a function."""
NUMERICS: Final = "float32/0.10.2/cpu/x86_64/1x1024"


class SimEngine:
    """One machine's worker."""

    def __init__(
        self,
        bundles: Mapping[bytes, tuple[str, Rates]],
        jobs_max: int,
        random: Random,
        machine: int,
        character: Character,
        nursery: trio.Nursery,
        works: Callable[[], None],
        *,
        lies: float = 1.0,
        lies_after_jobs: int = 0,
    ) -> None:
        """`works` is told of each step that the machine computes."""
        self.loading: bytes | None = None
        self.measures: Sequence[str] = ()
        self.refused: Mapping[bytes, EngineError] = {}
        self.generation = 0
        self.failure: EngineError | None = None
        self.ended: Ended | None = None
        self.hpke_key = b""
        self.busy_s = {GENERATE: 0.0, SCORE: 0.0, "call": 0.0}
        """Of its time, by entry."""
        self._bundles = bundles
        self._jobs_max = jobs_max
        self._random = random
        self._machine = machine
        self._character = character
        self._lies, self._honest_left = lies, lies_after_jobs
        self._nursery = nursery
        self._works = works
        self._duty = 1.0
        self._open: dict[bytes, _Running] = {}
        self._kept: dict[tuple[bytes, bytes], tuple[int, ...]] = {}
        """By job and client, the texts that were read last."""
        self._news = trio.Event()

    @property
    def served(self) -> Mapping[bytes, Served]:
        if not self.hpke_key:
            return {}
        return {each: Served(each, name, NUMERICS, rates) for each, (name, rates) in self._bundles.items()}

    @property
    def free_slots(self) -> int:
        return self._jobs_max - len(self._open) if self.hpke_key else 0

    def submit(self, job: EngineJob) -> Answer:
        if not self.hpke_key:
            raise EngineError(Code.WORKER_DIED, "No worker is ready.")
        if job.bundle not in self._bundles:
            raise EngineError(Code.UNKNOWN_BUNDLE, "The worker has not this bundle.")
        if len(self._open) >= self._jobs_max:
            raise EngineError(Code.BUSY, "Every slot is taken.")
        if job.id in self._open:
            raise EngineError(Code.REPLAYED, "This job is open already.")
        running = self._open[job.id] = _Running(job)
        self._nursery.start_soon(self._run, running)
        return running.open.answer

    def cancel(self, job_id: bytes) -> None:
        if running := self._open.pop(job_id, None):
            running.open.cancel()
            running.scope.cancel()

    def pace(self, duty: float) -> None:
        self._duty = duty

    def kill(self) -> None:
        self.hpke_key = b""
        died = EngineError(Code.WORKER_DIED, "The worker was stopped.")
        for running in list(self._open.values()):
            running.open.fail(died)
            running.scope.cancel()
        self._open.clear()
        self._changed()

    async def restart(self) -> None:
        self.kill()
        generation = self.generation
        await trio.sleep(self._random.uniform(*START_S))
        if self.generation != generation:
            raise EngineError(Code.WORKER_DIED, "The worker was stopped while it started.")
        self.hpke_key = self._random.randbytes(32)
        self._changed()

    async def changed(self, seen: int) -> int:
        while self.generation == seen:
            await self._news.wait()
        return self.generation

    def _changed(self) -> None:
        self.generation += 1
        self._news.set()
        self._news = trio.Event()

    async def _run(self, running: _Running) -> None:
        job = running.job
        with running.scope:
            try:
                await self._answer(running)
            except RemoteProtocolError as error:
                running.open.fail(EngineError(error.code, error.message))
        if self._open.get(job.id) is running:
            del self._open[job.id]

    async def _answer(self, running: _Running) -> None:
        job = running.job
        given = decode_input_untrusted(open_openly(self.hpke_key, job.id, job.sealed))
        work = decode_work_untrusted(given.work)
        if given.digest != job.input_digest or work.input_tokens != job.input_tokens or work.calls != job.calls:
            raise RemoteProtocolError(Code.INPUT_MISMATCH, "The work is not what the order says.")
        character = self._of_today()
        await self._compute(job, self._reading_s(job, work) * character.slow)
        if job.entry == GENERATE:
            pieces = self._generated(job, work, character)
        elif job.entry == SCORE:
            pieces = iter([self._scored(job, work, character)])
        else:
            pieces = iter([self._called(work, character)])
        await self._deliver(running, given, pieces, character)

    async def _deliver(
        self, running: _Running, given: Input, pieces: Iterator[tuple[Piece, str]], character: Character
    ) -> None:
        job, sealer = running.job, PieceSealer(given.reply_secret, running.job.id)
        transcript, rate = transcript_start(given.salt, job.id), self._bundles[job.bundle][1].decode_milli / 1000
        for index, (piece, end) in enumerate(pieces):
            if job.entry == GENERATE:
                await self._compute(job, len(piece.tokens) / rate * self._sharing() * character.slow)
            while running.credit <= 0:
                await running.granted.wait()
            running.credit -= 1
            encoded = piece.encode()
            transcript = transcript_next(transcript, encoded)
            running.open.add_untrusted(
                EnginePiece(
                    job.id,
                    index,
                    sealer.seal(index, encoded),
                    len(piece.values_micro),
                    piece.values_micro,
                    transcript,
                    end,
                    piece.gaps_micro,
                    piece.masses_ppm,
                )
            )

    async def _compute(self, job: EngineJob, takes_s: float) -> None:
        takes_s *= self._random.uniform(*UNEVEN)
        await trio.sleep(takes_s / self._duty)
        self.busy_s[job.entry] += takes_s / max(1, len(self._open))
        self._works()

    def _reading_s(self, job: EngineJob, work: Work) -> float:
        rates = self._bundles[job.bundle][1]
        if job.entry in (GENERATE, SCORE):
            unread = len(work.sequences[0]) - self._already_read(job, work.sequences[0])
            rate_milli = rates.prefill_milli if job.entry == GENERATE else rates.score_milli
            return max(unread, 1 + work.claimed) / rate_milli * 1000 * self._sharing()
        return job.calls / rates.call_milli * 1000 * self._sharing()

    def _already_read(self, job: EngineJob, tokens: tuple[int, ...]) -> int:
        """Of the text, as many first tokens as the same client has had read here; all of it is kept from now on."""
        own = [kept for (_, client), kept in self._kept.items() if client == job.client + job.bundle]
        common = max((_common(kept, tokens) for kept in own), default=0)
        self._kept[job.id, job.client + job.bundle] = tokens
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return common

    def _sharing(self) -> float:
        """How many times longer one slot's step takes than alone."""
        slots = max(1, len(self._open))
        for (few, least), (many, most) in pairwise(BATCH):
            if slots <= many:
                return slots / (least + (most - least) * (slots - few) / (many - few))
        return slots / BATCH[-1][1]

    def _of_today(self) -> Character:
        """It earns a record first, if it lies at all."""
        if self._honest_left > 0:
            self._honest_left -= 1
            return HONEST
        return self._character

    def _generated(self, job: EngineJob, work: Work, character: Character) -> Iterator[tuple[Piece, str]]:
        """Piece by piece, each with how the text ends there, if it does."""
        parameters, random = job.parameters, self._random
        state, tokens, values, made = model.read(model.begin(job.bundle), work.sequences[0]), [], [], 0
        lying, written = False, list[int]()
        while True:
            if made % WINDOW_TOKENS == 0:
                lying = character.generates is not None and random.random() < self._lies
            chosen = model.choice(state, parameters.seed, parameters.temperature_milli > 0)
            token, value = chosen, model.value_micro(state, chosen, chosen)
            value += model.rounding_micro(state, self._machine)
            if lying and character.generates is not None:
                token, shift = character.generates(state, chosen, random)
                value += shift
            tokens.append(token)
            written.append(token)
            values.append(value)
            state = model.read(state, (token,))
            made += 1
            end = EOS if token == model.END else LENGTH if made == parameters.max_tokens else ""
            if end or made == 1 or made % PIECE_TOKENS == 0:
                yield Piece(tokens=tuple(tokens), values_micro=tuple(values)), end
                tokens, values = [], []
            if end:
                self._kept[job.id, job.client + job.bundle] = (*work.sequences[0], *written)
                return

    def _scored(self, job: EngineJob, work: Work, character: Character) -> tuple[Piece, str]:
        parameters, sequence, finds = job.parameters, work.sequences[0], character.scores
        start = len(sequence) - work.claimed
        state, values, gaps = model.read(model.begin(job.bundle), sequence[:start]), [], []
        for token in sequence[start:]:
            chosen = model.choice(state, parameters.seed, parameters.temperature_milli > 0)
            value = model.value_micro(state, token, chosen) + model.rounding_micro(state, self._machine)
            gap = model.gap_micro(state, token, chosen)
            if finds is not None:
                shift, gap_shift = finds(state, token, chosen, self._random)
                value, gap = value + shift, max(0, gap + gap_shift)
            values.append(value)
            gaps.append(gap)
            state = model.read(state, (token,))
        return Piece(values_micro=tuple(values), gaps_micro=tuple(gaps), masses_ppm=(0,) * len(values)), DONE

    def _called(self, work: Work, character: Character) -> tuple[Piece, str]:
        rows = [result_of(sequence) for sequence in work.sequences]
        if character.calls:
            rows = [row[1:] + row[:1] for row in rows]
        flat = [number for row in rows for number in row]
        return Piece(tensor=struct.pack(f"<{len(flat)}f", *flat), shape=(len(rows), COLUMNS)), DONE


class _Running:
    """One job, and what it may still say."""

    def __init__(self, job: EngineJob) -> None:
        self.job = job
        self.open = OpenJob(job, 0, self._grant)
        self.scope = trio.CancelScope()
        self.credit = AHEAD_PIECES_MAX
        self.granted = trio.Event()

    def _grant(self, pieces: int) -> None:
        self.credit += pieces
        self.granted.set()
        self.granted = trio.Event()


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many first tokens they share."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(at for at in range(shorter) if one[at] != other[at])


def result_of(sequence: Sequence[int]) -> list[float]:
    """What the function gives for one input: the same bits on every machine of the class, and all are of one."""
    state = model.read(1, sequence)
    return [(model.mix(state + column) >> 40) / (1 << 24) - 0.5 for column in range(COLUMNS)]
