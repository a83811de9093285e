"""Whose turn it is: the jobs of a worker share its accelerator, one program's run at a time.

Texts that are being written take a step together, as many as fit into one batch. Between two such steps one piece of something
else is done: a chunk of a prompt, of a text to be checked, or a batch of a function's inputs, for the client who has waited
longest. So a long prompt does not hold up the texts beside it, and no client can crowd out another by the number of its jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ...protocol.errors import Code, EngineError, FallowError
from ...protocol.work import Parameters
from .entries import Apply, Fill, Judge, Next, Request, Step, Steps
from .messages import PREFIX_BYTES
from .prefixes import Prefix, Prefixes
from .programs import Model
from .sequences import Batches, Line, lengthen, sampling_of, zeros


@dataclass(slots=True, eq=False)
class Task:
    """One job, as far as turns go."""

    client: bytes
    model: Model
    parameters: Parameters
    steps: Steps
    give: Callable[[Step, frozenset[str]], None]
    """Takes each piece, and the variants of the programs that ran for it."""
    fail: Callable[[FallowError], None]
    """Told why there will be no more."""
    credit: int
    """Pieces that may be given before more are taken; without it a job waits."""
    request: Request | None = None
    """What it waits for; None: it has ended."""
    line: Line | None = None
    ran: set[str] = field(default_factory=set)
    """Variants of the programs that ran for it since it gave a piece."""
    done: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """What is there of the answer to a `Judge` or an `Apply`."""

    def advance(self, reply: object) -> None:
        """Its answer goes on as far as it can before something else has to be computed. Raises `FallowError`."""
        asked = self.steps.send(reply)
        while isinstance(asked, Step):
            self.credit -= 1
            self.give(asked, frozenset(self.ran))
            self.ran.clear()
            if asked.end:
                self.request = None
                self.steps.close()
                return
            asked = next(self.steps)
        self.request, self.done = asked, []


class Turns:
    """The jobs of one worker."""

    def __init__(self, models: Iterable[Model], prefix_bytes: int = PREFIX_BYTES) -> None:
        self._batches = {model: Batches(model) for model in models}
        self.prefixes = {model: Prefixes(prefix_bytes) for model in self._batches}
        self._tasks: list[Task] = []
        self._served: dict[bytes, int] = {}
        """The turn at which each client with a job here was last served."""
        self._turn = 0
        self._decode_next = True

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def waiting(self) -> bool:
        """Whether there is something to run."""
        return any(task.credit > 0 for task in self._tasks)

    def add(self, task: Task) -> None:
        """The job takes part. Raises `FallowError` if it cannot even begin; then it does not."""
        task.advance(None)
        if task.request is not None:
            self._tasks.append(task)

    def remove(self, task: Task) -> None:
        """The job takes no further part, and its slot is free; what was read of its sequence may be found again."""
        if (line := self._leave(task)) is not None:
            self._put_by(task, line)

    def _put_by(self, task: Task, line: Line) -> None:
        """The job's sequence has ended: its slot is free, and what was read of it may be found again."""
        task.line = None
        self._batches[task.model].take(line)
        if line.state is not None and task.model.rewinds:
            self.prefixes[task.model].keep(task.client, Prefix(tuple(line.tokens), line.state, line.context))

    def _leave(self, task: Task) -> Line | None:
        """The job takes no further part; its line, which may stand in a batch still."""
        if task not in self._tasks:
            return None
        self._tasks.remove(task)
        task.steps.close()
        self._served = {
            client: turn for client, turn in self._served.items() if any(t.client == client for t in self._tasks)
        }
        return task.line

    def run(self) -> None:
        """One program has run for whoever's turn it was, or one for each batch of texts."""
        able = [task for task in self._tasks if task.credit > 0]
        writing = [task for task in able if isinstance(task.request, Next)]
        others = [task for task in able if not isinstance(task.request, Next)]
        self._decode_next = bool(writing) and (not others or not self._decode_next)
        if self._decode_next:
            for model in {task.model for task in writing}:
                self._write(model, [task for task in writing if task.model is model])
        elif others:
            self._turn += 1
            task = min(others, key=lambda task: self._served.get(task.client, 0))
            self._served[task.client] = self._turn
            try:
                with _computing():
                    self._serve(task, others, alone=not writing)
            except FallowError as error:
                self._end(task, error)

    def _write(self, model: Model, tasks: list[Task]) -> None:
        tokens = {task.line: task.request.token for task in tasks if task.line and isinstance(task.request, Next)}
        try:
            with _computing():
                results = self._batches[model].step(tokens)
        except FallowError as error:
            lost = self._batches[model].drop(tokens)
            for task in [task for task in self._tasks if task.line in lost]:
                self._end(task, error)
            return
        for task in tasks:
            assert task.line is not None, "a text is written on a line"
            self._reply(task, results[task.line])

    def _serve(self, task: Task, others: list[Task], *, alone: bool) -> None:
        match task.request:
            case Fill(tokens):
                self._fill(task, tokens, alone=alone)
            case Judge(tokens, claimed):
                self._judge(task, tokens, claimed, alone=alone)
            case Apply():
                self._apply(task, others)

    def _fill(self, task: Task, tokens: tuple[int, ...], *, alone: bool) -> None:
        """One chunk more of the prompt is in the cache."""
        line = self._begin(task, tokens[:-1], "prefill", len(tokens), room=1)
        outputs = self._chunk(task, line, "prefill", tokens, alone=alone)
        if len(line.tokens) == len(tokens):
            following, values = outputs
            self._reply(task, (int(following[0]), float(values[0])))

    def _judge(self, task: Task, tokens: tuple[int, ...], claimed: int, *, alone: bool) -> None:
        """One chunk more of the text is in the cache. What nobody claims only has to be there, and that is cheaper."""
        known, first = tokens[:-1], len(tokens) - 1 - claimed  # the target after `first` is the first that is claimed
        line = self._begin(task, known[:first], "score", len(known))
        start = len(line.tokens)
        begin = task.model.begin("score", first, len(known), line.context)
        if start < begin and task.model.programs("prefill", line.context):
            self._chunk(task, line, "prefill", known[:begin], alone=alone)
            return
        columns = self._chunk(task, line, "score", known, tokens[1:], alone=alone)
        judged = np.concatenate(columns)[:, : len(line.tokens) - start]
        task.done.append(judged[:, max(0, first - start) :])
        if len(line.tokens) == len(known):
            self._reply(task, np.concatenate(task.done, axis=1))

    def _begin(self, task: Task, reusable: tuple[int, ...], role: str, end: int, *, room: int = 0) -> Line:
        """The job's line: as it is, or begun from whatever is kept of the first of these tokens. It is to reach `end`, with
        `room` for more."""
        if task.line is not None:
            return task.line
        model = task.model
        line = task.line = Line(task.client, task.parameters, ran=task.ran)
        least = min(end + room, model.manifest.context_tokens_max)
        if found := self.prefixes[model].find(task.client, reusable):
            common, prefix = found
            least = max(least, prefix.context)
        context = next(each for each in model.contexts(role) if each >= least)
        if found:
            line.tokens = list(reusable[: _resumed(model, role, common, len(reusable), end, context)])
            line.state, line.context = prefix.state, prefix.context
            lengthen(model.manifest.state, line, context)
        else:
            line.state, line.context = zeros(model.manifest.state, 1, context), context
        return line

    def _chunk(
        self, task: Task, line: Line, role: str, tokens: tuple[int, ...], targets: tuple[int, ...] = (), *, alone: bool
    ) -> list[np.ndarray[Any, Any]]:
        """The next of `tokens` are in the cache; the program's outputs."""
        start = len(line.tokens)
        most = line.context if alone else 1
        program = task.model.chunk(role, start, len(tokens) - start, line.context, most)
        taken = tokens[start : start + program.length]
        inputs = [_padded(taken, program.length)]
        if role == "score":
            inputs.append(_padded(targets[start : start + program.length], program.length))
        inputs.append(np.array([start], np.int32))
        if role == "prefill":
            inputs.append(np.array([len(taken)], np.int32))
        assert line.state is not None, "a line is in no batch while its tokens are being read"
        line.state, outputs = program.run(line.state, *inputs, *sampling_of([line]))
        line.tokens += taken
        line.ran.add(program.variant)
        return outputs

    def _apply(self, task: Task, others: list[Task]) -> None:
        """One run of a function, on inputs of this job and, where slots cannot see each other, of others'."""
        model, wanted = task.model, _row_length(task)
        programs = [p for p in model.programs("call") if p.length >= wanted]
        length = programs[0].length
        sharing = [t for t in others if t.model is model and (model.shared or t.client == task.client)]
        rows = [each for t in (task, *(t for t in sharing if t is not task)) for each in _rows(t, length)]
        widths = [p for p in programs if p.length == length and (p.ready or p.program.slots == 1)]
        # A wide run costs as much as its slots do one by one: it has to be more than half full.
        program = [p for p in widths if p.program.slots == 1 or len(rows) > p.program.slots // 2][-1]
        chosen = rows[: program.program.slots]
        inputs = _stacked(
            [arrays for _, arrays in chosen], program.program.slots, length, tokens=not model.manifest.inputs
        )
        _, (output,) = program.run([], *inputs)
        for (owner, _), row in zip(chosen, output, strict=False):
            owner.done.append(row)
            owner.ran.add(program.variant)
        for owner in dict.fromkeys(owner for owner, _ in chosen):
            assert isinstance(owner.request, Apply)
            if len(owner.done) == len(owner.request.rows):
                self._reply(owner, np.stack(owner.done))

    def _reply(self, task: Task, reply: object) -> None:
        try:
            task.advance(reply)
        except FallowError as error:
            self.remove(task)
            task.fail(error)
        if task.request is None:
            self.remove(task)
        elif isinstance(task.request, Fill | Judge) and task.line is not None:
            self._put_by(task, task.line)  # these begin a sequence, and one was begun before

    def _end(self, task: Task, error: FallowError) -> None:
        """The job ended with what was computed for it: a run that breaks takes the state with it."""
        self._leave(task)
        task.fail(error)


@contextmanager
def _computing() -> Iterator[None]:
    """What breaks between runs (no memory for another state, mostly) is said as what breaks in them is."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise EngineError(Code.WORKER_FAILED, f"The computation broke: {error}") from None


def alone(model: Model, parameters: Parameters, steps: Steps) -> Iterator[Step]:
    """The steps of one job that has the model to itself. Raises `FallowError`."""
    given: list[Step] = []
    failed: list[FallowError] = []
    turns = Turns([model], prefix_bytes=0)
    task = Task(b"", model, parameters, steps, lambda step, _: given.append(step), failed.append, credit=2**31)
    turns.add(task)
    while task.request is not None and not failed:
        turns.run()
        yield from given
        given.clear()
    if failed:
        raise failed[0]


def _resumed(model: Model, role: str, common: int, first: int, end: int, context: int) -> int:
    """How many of the first `common` tokens, which are kept, are not read again; `first` is where what is claimed begins."""
    if role == "score" and common >= (begin := model.begin(role, first, end, context)):
        return begin
    if role == "score" and model.programs("prefill", context):
        role, end = "prefill", begin
    return model.begin(role, common, end, context)


def _row_length(task: Task) -> int:
    """Positions that the next input of a function needs."""
    assert isinstance(task.request, Apply)
    arrays = task.request.rows[len(task.done)]
    return 1 if task.model.manifest.inputs else len(arrays[0])


def _rows(task: Task, length: int) -> Iterator[tuple[Task, tuple[np.ndarray[Any, Any], ...]]]:
    """The job's inputs that are still to be done, in order, up to the first that does not fit the length."""
    assert isinstance(task.request, Apply)
    for arrays in task.request.rows[len(task.done) :]:
        if not task.model.manifest.inputs and len(arrays[0]) > length:
            return
        yield task, arrays


def _stacked(
    rows: list[tuple[np.ndarray[Any, Any], ...]], slots: int, length: int, *, tokens: bool
) -> list[np.ndarray[Any, Any]]:
    """Inputs of one run: the rows one under another, and zeros in the slots that are left."""
    if tokens:
        ids, lengths = np.zeros((slots, length), np.int32), np.ones(slots, np.int32)
        for slot, (sequence,) in enumerate(rows):
            ids[slot, : len(sequence)] = sequence
            lengths[slot] = len(sequence)
        return [ids, lengths]
    empty = tuple(np.zeros_like(array) for array in rows[0])
    filled = [*rows, *[empty] * (slots - len(rows))]
    return [np.stack(columns) for columns in zip(*filled, strict=True)]


def _padded(tokens: tuple[int, ...], length: int) -> np.ndarray[Any, Any]:
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded
