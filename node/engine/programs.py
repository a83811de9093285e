"""A bundle's programs, compiled and ready to run.

The calling convention stands in `spec/07-bundles.md`. A worker answers as soon as it has the few programs that a lone job
needs; the others are loaded while it has nothing else to do (`load_next`), or when they are needed first. Each is admitted
before it is compiled (`loading`): whatever a node demands of a stranger's program, it demands there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import lcm, prod
from typing import Any, Final, TypeAlias

import jax

from ...protocol.bundle import CALL, GENERATE, SCORE, Manifest, Program
from ...protocol.errors import Code, EngineError
from ...protocol.limits import PROGRAM_BYTES_MAX
from ...protocol.numerics import variant
from .artifact import Aval, Signature
from .bundles import Bundle
from .device import Array, Weights, compiler_options
from .loading import Grant, Loaded, load_untrusted, own_grant
from .numerics import numerics_class

State: TypeAlias = list[jax.Array]
"""Slots' caches. A program consumes the state that it is given: only the one it returns may be used again."""

NEEDED: Final = {GENERATE: ("prefill", "decode"), SCORE: ("score",), CALL: ("call",)}
"""The roles that an entry needs programs for."""


class Model:
    """One bundle, loaded."""

    def __init__(self, bundle: Bundle, weights: Weights, grant: Grant, *, trusted: bool = False) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.numerics_class = numerics_class(weights.arrays, self.manifest)
        self.rewinds = all(each.positions_axis is not None for each in self.manifest.state)
        """Whether a sequence's state may be taken up at an earlier position: what follows there is overwritten."""
        self._trusted = trusted
        self.first_s = 0.0
        """What loading its first programs took."""
        roles = {role: self.manifest.role(role) for role in _ROLES}
        self._programs = {
            role: [ProgramRun(bundle, program, weights, grant) for program in roles[role]] for role in _ROLES
        }

    @property
    def shared(self) -> bool:
        """Whether jobs of different clients may stand side by side in one run: it is proven of every program that could be
        used so, or the owner takes the publisher's word."""
        every = (each for programs in self._programs.values() for each in programs)
        return self._trusted or all(each.isolated for each in every if each.program.slots > 1 and each.ready)

    def programs(self, role: str, context: int | None = None) -> list[ProgramRun]:
        """Those of a role, and of a context where one is given, the narrowest and shortest first."""
        return [each for each in self._programs[role] if context in (None, each.program.context)]

    def contexts(self, role: str) -> list[int]:
        """Contexts for which there are programs of a role, shortest first."""
        return sorted({each.program.context for each in self._programs[role]})

    def chunk(self, role: str, start: int, count: int, context: int, most: int) -> ProgramRun:
        """The program to take the next of `count` tokens from `start` on: the shortest that holds all, unless it were mostly
        padding; none that ends beyond its context, or is longer than `most` (unless all are)."""
        ones = [each for each in self.programs(role, context) if each.program.slots == 1]
        fitting = [each for each in ones if each.length <= max(most, ones[0].length) and start + each.length <= context]
        if not fitting:
            raise EngineError(Code.WORKER_FAILED, f"{self.manifest.name} has no {role} that fits at position {start}.")
        # No compiler runs while somebody waits, if it can be helped.
        fitting = [each for each in fitting if each.ready] or fitting
        whole = next((each for each in fitting if each.length >= count), None)
        if whole and (count > whole.length // 2 or whole is fitting[0]):
            return whole
        return next((each for each in reversed(fitting) if each.length <= count), fitting[0])

    def grid(self, role: str, context: int) -> int:
        """From every multiple of this on, chunks of the role fit whatever follows; `score` begins with chunks of `prefill`."""
        roles = ("prefill",) if role == "prefill" else ("prefill", "score")
        programs = [self.programs(each, context) for each in roles]
        return lcm(*(min(each.length for each in fitting) for fitting in programs if fitting))

    def begin(self, role: str, at: int, end: int, context: int) -> int:
        """Where chunks of the role that are to reach `end` begin: `at`, if that takes one less of the shortest and they fit,
        or else the last place on the grid before it, from which they always do."""
        shortest = self.programs(role, context)[0].length
        aligned = at - at % self.grid(role, context)
        from_at, from_aligned = (-(-(end - start) // shortest) for start in (at, aligned))
        return at if from_at < from_aligned and at + from_at * shortest <= context else aligned

    def load_first(self) -> None:
        """The programs that a lone short job of the bundle's first entry needs are loaded."""
        first = [self._programs[role][0] for role in NEEDED[self.manifest.entries[0]]]
        for each in first[1:]:
            each.read_ahead()
        for each in first:
            each.load()

    def load_next(self) -> bool:
        """One more program is loaded, the narrow ones first; False if all were. Raises as `ProgramRun.load`."""
        waiting = [each for programs in self._programs.values() for each in programs if not each.ready]
        if waiting:
            min(waiting, key=lambda each: (each.program.slots, each.program.context)).load()
        return bool(waiting)


class ProgramRun:
    """One program of a bundle, admitted and compiled when it is first needed."""

    def __init__(self, bundle: Bundle, program: Program, weights: Weights, grant: Grant) -> None:
        self.program = program
        self.length = program.length
        self.variant = variant(program)
        self._bundle = bundle
        self._weights = weights
        self._grant = grant
        self._loaded: Loaded | None = None

    @property
    def ready(self) -> bool:
        """Whether it can run without being loaded first."""
        return self._loaded is not None

    @property
    def isolated(self) -> bool:
        """Whether it is proven that no slot sees another, as far as it is known."""
        return self._loaded is not None and self._loaded.isolation.proven

    def load(self) -> Loaded:
        """It is admitted and compiled. Raises `EngineError(bundle_refused)` if it does not keep the rules."""
        if self._loaded is None:
            began = time.monotonic()
            with self._grant.announced():
                self._loaded = self._load()
            took = time.monotonic() - began
            print(f"{self._bundle.manifest.name}: {self.program.name} in {took:.2f} s", file=sys.stderr, flush=True)
        return self._loaded

    def read_ahead(self) -> None:
        """What is kept of it is being read by a thread, so that two take as long as one; `load` has to follow."""
        if self._grant.kept and self._loaded is None:
            self._grant.kept.read_ahead(self._artifact(), self._signature(), flops=self.program.flops)

    def _artifact(self) -> bytes:
        with (self._bundle.path / "programs" / self.program.name).open("rb") as stream:
            return stream.read(PROGRAM_BYTES_MAX + 1)  # a longer one is refused, however long it is

    def _signature(self) -> Signature:
        return signature_of(self._bundle.manifest, self.program, self._weights.arrays)

    def _load(self) -> Loaded:
        program, manifest = self.program, self._bundle.manifest
        try:
            loaded = load_untrusted(
                program.name,
                self._artifact(),
                self._signature(),
                flops=program.flops,
                slots=program.slots,
                grant=self._grant,
                options=compiler_options(program.role, program.length, program.context),
            )
            self._weights.lie(loaded.places)
            return loaded
        except EngineError as error:
            raise EngineError(error.code, f"{manifest.name}: program {program.name}: {error.message}.") from None

    def run(self, state: State, *inputs: Any) -> tuple[State, list[Any]]:
        """(state, outputs as NumPy arrays), computed. `inputs` are arrays with the slot as their first dimension.

        Raises `EngineError(worker_failed)` if the computation breaks (memory, mostly); the state is lost then.
        """
        loaded = self.load()
        try:
            state, *outputs = loaded.run(self._weights.arrays, state, *inputs)
            return state, jax.device_get(outputs)
        except jax.errors.JaxRuntimeError as error:
            raise EngineError(Code.WORKER_FAILED, f"The computation broke: {error}") from None


_ROLES: Final = ("prefill", "decode", "score", "call")


def load(bundle: Bundle, grant: Grant | None = None, *, trusted: bool = False, checked: bool = False) -> Model:
    """The model, every byte checked, its weights mapped and its first programs compiled; as one's own without a `grant`.

    `trusted`: its publisher's word is taken that slots cannot see each other. `checked`: its bytes were checked when this
    engine loaded it before. Raises `StoreError(corrupt_chunk)` if a file
    is not what the manifest says, `EngineError(worker_failed)` if its parts do not fit together or this machine cannot run
    them, `EngineError(devices_missing)` if it has fewer devices than they lie over, and `EngineError(bundle_refused)` for
    programs that do not keep the rules.
    """
    manifest = bundle.manifest
    _check_roles(manifest)
    _check_devices(manifest)
    if not checked:
        bundle.verify()
    began = time.monotonic()
    try:
        model = Model(bundle, Weights(bundle), grant or own_grant(), trusted=trusted)
        model.load_first()
    except jax.errors.JaxRuntimeError as error:
        why = (str(error).splitlines() or ["no reason was given"])[0][:300]
        raise EngineError(Code.WORKER_FAILED, f"The programs of {manifest.name} cannot be run: {why}") from error
    model.first_s = time.monotonic() - began
    print(
        f"{manifest.name} ({bundle.cid}) in {model.first_s:.2f} s; {model.numerics_class}", file=sys.stderr, flush=True
    )
    return model


def inputs_of(manifest: Manifest, program: Program) -> tuple[Aval, ...]:
    """What one run takes beside parameters and state, in order."""
    slots, length = program.slots, program.length
    tokens, number = Aval("int32", (slots, length)), Aval("int32", (slots,))
    sampling = Aval("uint32", (slots, 2)), Aval("float32", (slots,)), Aval("float32", (slots,))
    match program.role:
        case "prefill":
            return tokens, number, number, *sampling
        case "decode":
            return number, number, *sampling
        case "score":
            return tokens, tokens, number, *sampling
    if manifest.inputs:
        return tuple(Aval(each.dtype, (slots, *each.shape)) for each in manifest.inputs)
    return tokens, number


def outputs_of(manifest: Manifest, program: Program) -> tuple[Aval, ...]:
    """What one run gives beside state, in order."""
    slots = program.slots
    match program.role:
        case "prefill" | "decode":
            return Aval("int32", (slots,)), Aval("float32", (slots,))
        case "score":
            return (Aval("float32", (slots, program.length)),) * 3
    return (Aval("float32", (slots, sum(prod(each.shape) for each in manifest.outputs))),)


def signature_of(manifest: Manifest, program: Program, params: Sequence[Array]) -> Signature:
    """All that the convention says of the program's arguments and results."""
    given = tuple(Aval(each.dtype.name, each.shape) for each in params)
    carried = manifest.state if program.role != CALL else ()
    state = tuple(Aval(each.dtype, (program.slots, *each.shape_in(program.context))) for each in carried)
    inputs, outputs = inputs_of(manifest, program), outputs_of(manifest, program)
    return Signature(given, state, inputs, outputs, manifest.devices or 1)


def _check_devices(manifest: Manifest) -> None:
    """Raises `EngineError(devices_missing)` if this process has too few."""
    wanted, found = manifest.devices or 1, len(jax.devices())
    if found < wanted:
        kind = jax.devices()[0].platform
        why = f"{manifest.name} lies over {wanted} devices of one machine, and this worker has {found} ({kind})."
        raise EngineError(Code.DEVICES_MISSING, why)


def _check_roles(manifest: Manifest) -> None:
    """Raises `EngineError(worker_failed)` unless each entry finds its programs, of each kind one, in lengths that fit."""
    for role in (role for entry in manifest.entries for role in NEEDED[entry]):
        programs = manifest.role(role)
        alone = {program.context for program in programs if program.slots == 1}
        if not alone or alone != {program.context for program in programs}:
            raise EngineError(Code.WORKER_FAILED, f"{manifest.name} has no program for {role} of one sequence alone.")
        if role != CALL and max(alone) != manifest.context_tokens_max:
            raise EngineError(Code.WORKER_FAILED, f"No {role} of {manifest.name} takes its whole context.")
        if role == CALL and any(program.length != program.context for program in programs):
            raise EngineError(Code.WORKER_FAILED, f"A {role} of {manifest.name} has another length than context.")
        if len({(each.context, each.slots, each.length) for each in programs}) != len(programs):
            raise EngineError(Code.WORKER_FAILED, f"{manifest.name} has two programs for the same {role}.")
    for lengths in _lengths(manifest):
        if any(longer % shorter for shorter, longer in pairwise(lengths)):
            raise EngineError(Code.WORKER_FAILED, f"Lengths of {manifest.name}'s programs do not divide: {lengths}.")


def _lengths(manifest: Manifest) -> Iterator[list[int]]:
    """For each role that works in chunks, and each of its contexts: the lengths, and the context itself."""
    for role in ("prefill", "score"):
        programs = manifest.role(role)
        for context in {program.context for program in programs}:
            yield [*sorted({program.length for program in programs if program.context == context}), context]
