"""A proof that the slots of a batched program cannot see each other, or the first reason why there is none.

Jobs of different clients share a run only if no slot's results depend on another slot's inputs. So the slot axis is followed
through the program. Every value is one of two things:

    None                 it depends on no slot: parameters, constants, positions
    Slots(axis, inner)   along `axis`, element j depends on slot (j // inner) % slots alone (and on what depends on none)

State and inputs begin as `Slots(0)`, and so must every result end, or depend on no slot. An operation whose result is
neither of the two is where the proof ends: a sum over the slots, a row picked from another slot, a number of rank 0 made of
slotted ones (so no branch and no loop can turn on what is in a slot: not even the time that a run takes tells of it).
Whatever is not understood is not proven.

What a publisher has to avoid, then, in programs for several slots: `lax.cond` and `while_loop` on `jnp.any` of something;
indexing with `jnp.arange(slots)` (`jax.vmap` and `take_along_axis` say the same in batching dimensions, which are followed);
reshapes after which slots are no longer whole runs of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jaxlib.mlir import ir

from .artifact import Artifact, callee
from .operations import ELEMENTWISE
from .slot_rules import RULES, NotProvenError, Slots, State, same, shape_of, stop

STEPS_MAX: Final = 1_000_000
"""Operations looked at; loops inside of loops are looked at again and again. A decode program takes 10 000."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether it is proven that no slot sees another, and why not."""

    proven: bool
    reason: str


def prove(artifact: Artifact, slots: int) -> Isolation:
    """Whether no slot of `main` sees another. Of an admitted module only: this trusts its types and its calls."""
    if slots == 1:
        return Isolation(True, "a run takes one sequence")
    params = len(artifact.signature.params)
    begin: list[State] = [None if place is None or place < params else Slots(0) for place in artifact.places]
    main = artifact.functions["main"]
    proof = _Proof(artifact, slots)
    try:
        for argument, state in zip(main.arguments, begin, strict=True):
            if state and shape_of(argument)[:1] != [slots]:
                raise NotProvenError(f"an argument of shape {shape_of(argument)} has no axis of {slots} slots in front")
        shapes = [list(aval.shape) for aval in artifact.exported.out_avals]
        for index, state in enumerate(proof.block(main, begin)):
            if state and (state != Slots(0) or shapes[index][0] != slots):
                raise NotProvenError(f"result {index} does not have the slots in front")
    except NotProvenError as error:
        return Isolation(False, str(error))
    return Isolation(True, "each result was followed back to its own slot")


class _Proof:
    def __init__(self, artifact: Artifact, slots: int) -> None:
        self._functions = artifact.functions
        self._slots = slots
        self._states: dict[ir.Value[ir.Type], State] = {}
        self._called: dict[tuple[str, tuple[State, ...]], list[State]] = {}
        self._steps = 0

    def block(self, block: ir.Block, arguments: Iterable[State]) -> list[State]:
        """What the block returns, if its arguments are in these states."""
        self._states.update(zip(block.arguments, arguments, strict=True))
        for view in block.operations:
            operation = view.operation
            if operation.name in ("stablehlo.return", "func.return"):
                return self._of(operation.operands)
            self._states.update(zip(operation.results, self._results(operation), strict=True))
        raise NotProvenError("a block has no end")

    def _of(self, values: Iterable[ir.Value[ir.Type]]) -> list[State]:
        return [self._states[value] for value in values]

    def _results(self, operation: ir.Operation) -> list[State]:
        self._steps += 1
        if self._steps > STEPS_MAX:
            stop(operation, f"the program takes more than {STEPS_MAX} steps to follow")
        states = self._of(operation.operands)
        match operation.name:
            case "stablehlo.while":
                return self._loop(operation, states)
            case "stablehlo.case" | "stablehlo.if":
                branches = [self.block(region.blocks[0], ()) for region in operation.regions]
                return [same(operation, results) for results in zip(*branches, strict=True)]
            case "func.call":
                return self._call(operation, states)
            case "stablehlo.composite":
                return self._composite(operation, states)
            case (
                "stablehlo.optimization_barrier" | "sdy.sharding_constraint"
            ):  # where a value lies changes nothing of it
                return states
            case "stablehlo.reshape":
                return [states[0] and self._reshaped(operation, states[0])]
        self._check_regions(operation)
        if not any(states):
            return [None] * len(operation.results)
        return self._named(operation.name, operation, states)

    def _named(self, name: str, operation: ir.Operation, states: list[State]) -> list[State]:
        if name in ELEMENTWISE:
            return [same(operation, states)] * len(operation.results)
        if rule := RULES.get(name):
            return [rule(operation, states)] * len(operation.results)
        stop(operation, "nothing is known of where it leaves the slots")

    def _loop(self, operation: ir.Operation, states: list[State]) -> list[State]:
        condition, body = (region.blocks[0] for region in operation.regions)
        while True:  # each turn but the last finds at least one more state that is slotted
            self.block(condition, states)
            after = [same(operation, pair) for pair in zip(states, self.block(body, states), strict=True)]
            if after == states:
                return states
            states = after

    def _call(self, operation: ir.Operation, states: list[State]) -> list[State]:
        name = callee(operation)
        assert name
        key = name, tuple(states)
        if key not in self._called:
            self._called[key] = self.block(self._functions[name], states)
        return self._called[key]

    def _composite(self, operation: ir.Operation, states: list[State]) -> list[State]:
        """A compiler may do what the function does, or what its name says."""
        done = self._call(operation, states)
        if any(states) and done != self._named(ir.StringAttr(operation.attributes["name"]).value, operation, states):
            stop(operation, "its name says something else than it does")
        return done

    def _check_regions(self, operation: ir.Operation) -> None:
        """Reducers, comparators and their like see elements only, not what is outside of them."""
        for region in operation.regions:
            for block in region.blocks:
                for view in block.operations:
                    if any(self._states.get(value) for value in view.operation.operands):
                        stop(operation, "its inner function reads slots from outside")
                    self._check_regions(view.operation)

    def _reshaped(self, operation: ir.Operation, state: Slots) -> Slots:
        """Order in memory stays, so a slot is a run of the same length before and after."""
        before, after = shape_of(operation.operands[0]), shape_of(operation.results[0])
        run = state.inner * math.prod(before[state.axis + 1 :])
        for axis, length in enumerate(after):
            behind = math.prod(after[axis + 1 :])
            if behind and run % behind == 0 and length * behind % (run * self._slots) == 0 and length > 1:
                return Slots(axis, run // behind)
        stop(operation, "it splits the slots over several axes")
