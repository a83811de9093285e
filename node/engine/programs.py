"""A bundle's programs, compiled and ready to run: the only place, beside the exporter's, where JAX is used.

The calling convention stands in `spec/07-bundles.md`. Programs are loaded when they are first needed, or by `load_all` in the
background: a worker answers as soon as it has the few that a lone job needs.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from jax import export

from ...protocol.bundle import CALL, GENERATE, SCORE, Manifest, Program
from ...protocol.errors import Code, EngineError
from .bundles import Bundle
from .device import map_weights, numerics_class

State: TypeAlias = list[jax.Array]
"""Slots' caches. A program consumes the state that it is given: only the one it returns may be used again."""

NEEDED: Final = {GENERATE: ("prefill", "decode"), SCORE: ("score",), CALL: ("call",)}
"""The roles that an entry needs programs for."""


class Model:
    """One bundle, loaded. Everything runs in the caller's thread, but for `load_all`, which may have one of its own."""

    def __init__(self, bundle: Bundle, params: list[jax.Array]) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.numerics_class = numerics_class(params, self.manifest)
        self.shared = False
        """Whether jobs of different clients may stand side by side in one run."""
        self.rewinds = all(each.positions_axis is not None for each in self.manifest.state)
        """Whether a sequence's state may be taken up at an earlier position: what follows there is overwritten."""
        self._params = params
        self._programs = {role: [_Loaded(bundle, p, params) for p in self.manifest.role(role)] for role in _ROLES}

    def programs(self, role: str, context: int | None = None) -> list[_Loaded]:
        """Those of a role, and of a context where one is given, the narrowest and shortest first."""
        return [each for each in self._programs[role] if context in (None, each.program.context)]

    def contexts(self, role: str) -> list[int]:
        """Contexts for which there are programs of a role, shortest first."""
        return sorted({each.program.context for each in self._programs[role]})

    def chunk(self, role: str, start: int, count: int, context: int, most: int) -> _Loaded:
        """The program to take the next of `count` tokens from `start` on: the shortest that holds all, unless it were mostly
        padding; none that ends beyond its context, or is longer than `most` (unless all are)."""
        ones = [each for each in self.programs(role, context) if each.program.slots == 1]
        fitting = [each for each in ones if each.length <= max(most, ones[0].length) and start + each.length <= context]
        if not fitting:
            raise EngineError(Code.WORKER_FAILED, f"{self.manifest.name} has no {role} that fits at position {start}.")
        whole = next((each for each in fitting if each.length >= count), None)
        if whole and (count > whole.length // 2 or whole is fitting[0]):
            return whole
        return next((each for each in reversed(fitting) if each.length <= count), fitting[0])

    def aligned(self, position: int) -> int:
        """The last position, at or before this one, from which chunks fit whatever follows."""
        lengths = [each.length for role in ("prefill", "score") for each in self._programs[role]]
        return position - position % min(lengths, default=1)

    def load_first(self) -> None:
        """The programs that a lone short job needs are loaded."""
        for entry in self.manifest.entries:
            for role in NEEDED[entry]:
                self._programs[role][0].load()

    def load_all(self) -> None:
        """Every program is loaded, the narrow ones first. Raises `EngineError` for one that cannot be."""
        every = (each for programs in self._programs.values() for each in programs)
        for each in sorted(every, key=lambda each: (each.program.slots, each.program.context)):
            each.load()


class _Loaded:
    """One program of a bundle, compiled when it is first needed."""

    def __init__(self, bundle: Bundle, program: Program, params: list[jax.Array]) -> None:
        self.program = program
        self.length = program.length
        self._bundle = bundle
        self._params = params
        self._lock = threading.Lock()
        self._compiled: Callable[..., Any] | None = None  # roles differ in inputs and outputs

    @property
    def ready(self) -> bool:
        """Whether it can run without being loaded first."""
        return self._compiled is not None

    def load(self) -> Callable[..., Any]:
        """It is compiled. Raises `EngineError(worker_failed)` if it is not a program of this machine's kind."""
        with self._lock:
            if self._compiled is None:
                began = time.monotonic()
                self._compiled = _compile(self._bundle, self.program, self._params)
                took = time.monotonic() - began
                print(f"{self._bundle.manifest.name}: {self.program.name} in {took:.2f} s", file=sys.stderr, flush=True)
        return self._compiled

    def run(self, state: State, *inputs: Any) -> tuple[State, list[Any]]:
        """(state, outputs as NumPy arrays), computed. `inputs` are arrays with the slot as their first dimension.

        Raises `EngineError(worker_failed)` if the computation breaks (memory, mostly); the state is lost then.
        """
        try:
            state, *outputs = self.load()(self._params, state, *inputs)
            return state, jax.device_get(outputs)
        except jax.errors.JaxRuntimeError as error:
            raise EngineError(Code.WORKER_FAILED, f"The computation broke: {error}") from None


_ROLES: Final = ("prefill", "decode", "score", "call")


def load(bundle: Bundle) -> Model:
    """The model, every byte checked, its weights mapped and its first programs compiled.

    Raises `StoreError(corrupt_chunk)` if a file is not what the manifest says, and `EngineError(worker_failed)` if its parts do
    not fit together or this machine cannot run them.
    """
    manifest = bundle.manifest
    _check_roles(manifest)
    bundle.verify()
    began = time.monotonic()
    try:
        model = Model(bundle, map_weights(bundle))
        model.load_first()
    except (ValueError, TypeError, KeyError, jax.errors.JaxRuntimeError) as error:
        why = (str(error).splitlines() or ["no reason was given"])[0][:300]
        raise EngineError(Code.WORKER_FAILED, f"The programs of {manifest.name} cannot be run: {why}") from error
    took = time.monotonic() - began
    print(f"{manifest.name} ({bundle.cid}) in {took:.2f} s; {model.numerics_class}", file=sys.stderr, flush=True)
    return model


def inputs_of(manifest: Manifest, program: Program) -> list[jax.ShapeDtypeStruct]:
    """What one run takes beside parameters and state, in order."""
    slots, length = program.slots, program.length
    tokens, number = _spec((slots, length), "int32"), _spec((slots,), "int32")
    sampling = [_spec((slots, 2), "uint32"), _spec((slots,), "float32"), _spec((slots,), "float32")]
    match program.role:
        case "prefill":
            return [tokens, number, number, *sampling]
        case "decode":
            return [number, number, *sampling]
        case "score":
            return [tokens, tokens, number, *sampling]
    if manifest.inputs:
        return [_spec((slots, *each.shape), each.dtype) for each in manifest.inputs]
    return [tokens, number]


def state_of(manifest: Manifest, program: Program) -> list[jax.ShapeDtypeStruct]:
    """The state that one run takes and gives."""
    carried = manifest.state if program.role != CALL else ()
    return [_spec((program.slots, *each.shape_in(program.context)), each.dtype) for each in carried]


def _check_roles(manifest: Manifest) -> None:
    """Raises `EngineError(worker_failed)` unless each entry finds its programs, in lengths that always fit."""
    for role in (role for entry in manifest.entries for role in NEEDED[entry]):
        programs = manifest.role(role)
        alone = {program.context for program in programs if program.slots == 1}
        if not alone or alone != {program.context for program in programs}:
            raise EngineError(Code.WORKER_FAILED, f"{manifest.name} has no program for {role} of one sequence alone.")
        if role != CALL and max(alone) != manifest.context_tokens_max:
            raise EngineError(Code.WORKER_FAILED, f"No {role} of {manifest.name} takes its whole context.")
    for lengths in _lengths(manifest):
        if any(longer % shorter for shorter, longer in pairwise(lengths)):
            raise EngineError(Code.WORKER_FAILED, f"Lengths of {manifest.name}'s programs do not divide: {lengths}.")


def _lengths(manifest: Manifest) -> Iterator[list[int]]:
    """For each role that works in chunks, and each of its contexts: the lengths, and the context itself."""
    for role in ("prefill", "score"):
        programs = manifest.role(role)
        for context in {program.context for program in programs}:
            yield [*sorted({program.length for program in programs if program.context == context}), context]


def _compile(bundle: Bundle, program: Program, params: Sequence[jax.Array]) -> Callable[..., Any]:
    artifact = bytearray((bundle.path / "programs" / program.name).read_bytes())
    # Donation does not survive export, so it is said again: without it each step would copy the caches.
    function = jax.jit(export.deserialize(artifact).call, donate_argnums=1)
    lowered = function.lower(params, state_of(bundle.manifest, program), *inputs_of(bundle.manifest, program))
    return lowered.compile()


def _spec(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype))  # type: ignore[no-untyped-call]  # untyped in jax 0.10
