"""Sequences under way: what of each is in a cache, and the batches in which several go on side by side.

A batch is one state of B slots. Sequences join and leave between any two steps; the batch gets wider, narrower or longer as
they do, in the sizes for which the bundle has programs. A slot in which nothing runs computes nonsense that nobody sees: at
position 0, or at the place that its sequence overwrites next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from ...protocol.bundle import Carried
from ...protocol.work import Parameters
from .programs import Model, State

Shapes: TypeAlias = tuple[tuple[tuple[int, ...], str], ...]
"""Shape and dtype of each array of a state."""


@dataclass(slots=True, eq=False)
class Line:
    """One sequence, and how it is sampled."""

    client: bytes
    parameters: Parameters
    tokens: list[int] = field(default_factory=list)
    """Those in the cache, from position 0 on."""
    state: State | None = None
    """Of one slot, while it stands in no batch."""
    context: int = 0
    """Of that state."""
    ran: set[str] = field(default_factory=set)
    """Variants of the programs that ran for it since its job gave a piece."""

    def sampling(self) -> tuple[list[int], float, float]:
        """Seed (low word, high word), temperature and top-p as programs take them."""
        order = self.parameters
        return [order.seed & 0xFFFFFFFF, order.seed >> 32], order.temperature_milli / 1e3, order.top_p_ppm / 1e6


def sampling_of(lines: Sequence[Line | None]) -> tuple[np.ndarray[Any, Any], ...]:
    """Seeds u32[B,2], temperatures f32[B], top-p f32[B]; an empty slot's are greedy."""
    seeds, temperatures, tops = zip(*(line.sampling() if line else ([0, 0], 0.0, 1.0) for line in lines), strict=True)
    return np.array(seeds, np.uint32), np.array(temperatures, np.float32), np.array(tops, np.float32)


class Batch:
    """Slots of one state, some with a line in them."""

    def __init__(self, model: Model, slots: int, context: int) -> None:
        self.lines: list[Line | None] = [None] * slots
        self.context = context
        self._model = model
        self._state = zeros(model.manifest.state, slots, context) if slots > 1 else []  # a lone line brings its own
        (self._program,) = [each for each in model.programs("decode", context) if each.program.slots == slots]

    def place(self, line: Line) -> None:
        """The line, whose own state is of this context, stands in a free slot."""
        assert line.state is not None, "a line outside of a batch has a state of its own"
        slot = self.lines.index(None)
        self._state = line.state if len(self.lines) == 1 else _place(self._state, line.state, slot)
        self.lines[slot], line.state = line, None

    def take(self, line: Line) -> None:
        """The line has left, with its state."""
        slot = self.lines.index(line)
        line.state = self._state if len(self.lines) == 1 else _take(self._state, slot)
        line.context, self.lines[slot] = self.context, None

    def step(self, tokens: Mapping[Line, int]) -> dict[Line, tuple[int, float]]:
        """Each of these lines has one more token; returns what follows, and its log-probability in nats.

        Raises `EngineError(worker_failed)` if the computation breaks; every line's state is lost then.
        """
        given = np.array([tokens.get(line, 0) if line else 0 for line in self.lines], np.int32)
        positions = np.array([len(line.tokens) if line else 0 for line in self.lines], np.int32)
        self._state, (following, values) = self._program.run(self._state, given, positions, *sampling_of(self.lines))
        results: dict[Line, tuple[int, float]] = {}
        for line, token, value in zip(self.lines, following.tolist(), values.tolist(), strict=True):
            if line and line in tokens:
                line.tokens.append(tokens[line])
                line.ran.add(self._program.variant)
                results[line] = token, value
        return results


class Batches:
    """The lines of one model that are being decoded."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._batches: dict[bytes, list[Batch]] = {}
        """By who may share them: all, where it is proven that slots cannot see each other, else each client alone."""
        self._shared = model.shared

    def step(self, tokens: Mapping[Line, int]) -> dict[Line, tuple[int, float]]:
        """As `Batch.step`, over as few runs as the programs allow. Lines that are new find a place first."""
        self._regroup()
        results: dict[Line, tuple[int, float]] = {}
        groups: dict[bytes, list[Line]] = {}
        for line in tokens:
            groups.setdefault(self._group(line), []).append(line)
        for group, lines in groups.items():
            self._arrange(group, lines)
            for batch in self._batches[group]:
                if asked := {line: tokens[line] for line in batch.lines if line and line in tokens}:
                    results |= batch.step(asked)
        return results

    def take(self, line: Line) -> None:
        """The line has left, and has its state, if it was in a batch. What remains gets narrower when next it is used."""
        group = self._group(line)
        batches = self._batches.get(group, [])
        for batch in [batch for batch in batches if line in batch.lines]:
            batch.take(line)
            if not any(batch.lines):
                batches.remove(batch)
        if not batches:
            self._batches.pop(group, None)

    def drop(self, lines: Iterable[Line]) -> set[Line]:
        """These lines' states are lost, and so are those of all that stood in one batch with them: returns all of them."""
        lost = set(lines)
        for batches in self._batches.values():
            for batch in [batch for batch in batches if lost & set(batch.lines)]:
                lost |= {line for line in batch.lines if line}
                batches.remove(batch)
        return lost

    def _group(self, line: Line) -> bytes:
        return b"" if self._shared else line.client

    def _regroup(self) -> None:
        """Lines stand where they may: a program that was loaded since may be one that nothing is proven of."""
        if self._shared != self._model.shared:
            for line in [
                line for batches in self._batches.values() for batch in batches for line in batch.lines if line
            ]:
                self.take(line)
            self._shared = self._model.shared

    def _arrange(self, group: bytes, lines: Sequence[Line]) -> None:
        """Every line of the group stands in a batch that is wide enough for as many as possible, and no wider or shorter
        than need be."""
        batches = self._batches.setdefault(group, [])
        if not self._model.rewinds:
            _leave_out(batches, lines)
        inside = [line for batch in batches for line in batch.lines if line]
        outside = [line for line in lines if line.state is not None]
        every = inside + outside
        needed = [len(line.tokens) + 1 for line in every]
        there = [line.context for line in outside] + [batch.context for batch in batches]
        context = next(each for each in self._model.contexts("decode") if each >= max(needed + there))
        width = self._width(context, len(every))
        fitting = all(batch.context == context and len(batch.lines) == width for batch in batches)
        if not fitting or len(batches) != -(-len(every) // width):
            for batch in batches:
                for line in [line for line in batch.lines if line]:
                    batch.take(line)
            batches[:] = [Batch(self._model, width, context) for _ in range(0, len(every), width)]
            outside = every
        for line in outside:
            lengthen(self._model.manifest.state, line, context)
            next(batch for batch in batches if None in batch.lines).place(line)

    def _width(self, context: int, lines: int) -> int:
        """The narrowest batch that holds so many lines, else the widest that there is; of the programs that are loaded."""
        widths = [p.program.slots for p in self._model.programs("decode", context) if p.ready or p.program.slots == 1]
        return next((width for width in widths if width >= lines), widths[-1])


def _leave_out(batches: Iterable[Batch], lines: Sequence[Line]) -> None:
    """Lines that are not to go on stand in no batch: a run would mix into their states what nothing takes out again."""
    for batch in batches:
        for line in [line for line in batch.lines if line and line not in lines]:
            batch.take(line)


def rehearsal(model: Model) -> Iterator[None]:
    """What is done to states here has been compiled, in each shape, one at a time: the machine's compile cache has it then."""
    carried, contexts = model.manifest.state, model.contexts("decode") or model.contexts("score")
    for context in contexts:
        one = _places(carried, 1, context)
        todo = [_zeros(_shapes(carried, 1, context)).lower(), _copied.lower(one)]
        for longer in contexts[contexts.index(context) + 1 :]:
            todo.append(_lengthen.lower(one, context=longer, axes=_axes(carried)))
        for width in {each.program.slots for each in model.programs("decode", context)} - {1}:
            wide = _places(carried, width, context)
            todo += [_zeros(_shapes(carried, width, context)).lower(), _place.lower(wide, one, 0), _take.lower(wide, 0)]
        for each in todo:
            each.compile()
            yield


def zeros(carried: Sequence[Carried], slots: int, context: int) -> State:
    """The state of sequences that have not begun."""
    made: State = _zeros(_shapes(carried, slots, context))()
    return made


def lengthen(carried: Sequence[Carried], line: Line, context: int) -> None:
    """The line's own state is of that context, which is not shorter than what it was."""
    if line.context < context:
        line.state = _lengthen(line.state, context=context, axes=_axes(carried))
        line.context = context


def copied(state: State) -> State:
    """The state once more, for a program to use up."""
    made: State = _copied(state)
    return made


def _shapes(carried: Sequence[Carried], slots: int, context: int) -> Shapes:
    return tuple(((slots, *each.shape_in(context)), each.dtype) for each in carried)


def _axes(carried: Sequence[Carried]) -> tuple[int | None, ...]:
    """Along which a state gets longer."""
    return tuple(None if each.positions_axis is None else each.positions_axis + 1 for each in carried)


def _places(carried: Sequence[Carried], slots: int, context: int) -> list[jax.ShapeDtypeStruct]:
    """Such a state where programs leave it. (One that jax might move is compiled for, and kept, apart.)"""
    spec: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct  # untyped in jax 0.10
    return [spec(*each, sharding=_first_device()) for each in _shapes(carried, slots, context)]


@cache
def _first_device() -> SingleDeviceSharding:
    return SingleDeviceSharding(jax.devices()[0])


@cache
def _zeros(shapes: Shapes) -> jax.stages.Wrapped:
    def zeros() -> State:
        return [jnp.zeros(shape, dtype) for shape, dtype in shapes]

    return jax.jit(zeros, out_shardings=_first_device())


_copied: Final = jax.jit(lambda state: [jnp.copy(array) for array in state])
_take: Final = jax.jit(lambda state, slot: [lax.dynamic_slice_in_dim(each, slot, 1) for each in state])
_place: Final = jax.jit(
    lambda state, one, slot: [lax.dynamic_update_slice_in_dim(a, b, slot, 0) for a, b in zip(state, one, strict=True)],
    donate_argnums=0,
)


@partial(jax.jit, static_argnames=("axes", "context"))
def _lengthen(state: State, *, axes: tuple[int | None, ...], context: int) -> State:
    def longer(array: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:
            return array
        return jnp.pad(array, [(0, context - array.shape[axis] if axis == each else 0) for each in range(array.ndim)])

    return [longer(array, axis) for array, axis in zip(state, axes, strict=True)]
