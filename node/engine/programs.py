"""A bundle's programs, compiled and ready to run: the only place, beside the exporter's, where JAX is used.

The calling convention stands in `spec/07-bundles.md`. Loading is one function, `load`: whatever a node demands of a
stranger's program before it compiles it, it demands there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...protocol.bundle import CALL, GENERATE, SCORE, Manifest, Program
from ...protocol.errors import Code, EngineError
from ...protocol.limits import PROGRAM_BYTES_MAX
from ...protocol.work import Parameters
from .artifact import Aval, Signature
from .bundles import Bundle
from .device import map_weights, numerics_class
from .loading import Grant, load_untrusted, own_grant
from .messages import Rates

State: TypeAlias = list[jax.Array]
"""A job's caches. A program consumes the state that it is given: only the one it returns may be used again."""

_DECODE_STEPS: Final = 3
"""Steps timed at the start: a rate within some 10 %, for a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """An order's parameters as programs take them."""

    seed: np.ndarray[tuple[int], np.dtype[np.uint32]]
    """Low word, high word."""
    temperature: np.float32
    top_p: np.float32

    @staticmethod
    def of(parameters: Parameters) -> Sampling:
        seed = np.array([parameters.seed & 0xFFFFFFFF, parameters.seed >> 32], np.uint32)
        return Sampling(seed, np.float32(parameters.temperature_milli / 1e3), np.float32(parameters.top_p_ppm / 1e6))


@dataclass(frozen=True, slots=True)
class _Compiled:
    length: int
    run: Callable[..., Any]  # roles differ in inputs and outputs; `Model`'s methods know each one's


class Model:
    """One bundle, loaded. Methods run one program once and wait for it; positions are absolute.

    All raise `EngineError(worker_failed)` if the computation breaks (memory, mostly); the job's state is lost then.
    """

    def __init__(self, manifest: Manifest, params: list[jax.Array], programs: dict[str, list[_Compiled]]) -> None:
        self.manifest = manifest
        self.numerics_class = numerics_class(params)
        self.rates = Rates()
        self._params = params
        self._programs = programs
        shapes = [(tensor.shape, tensor.dtype) for tensor in manifest.state]
        self._zeros: Callable[[], State] = jax.jit(lambda: [jnp.zeros(shape, dtype) for shape, dtype in shapes])

    def zeros(self) -> State:
        """The state of a job that has not begun."""
        return self._zeros()

    def lengths(self, role: str) -> list[int]:
        """Lengths of the programs of a role, shortest first."""
        return [program.length for program in self._programs[role]]

    def prefill(
        self, state: State, tokens: Sequence[int], start: int, sampling: Sampling
    ) -> tuple[State, int, int, float]:
        """(state, taken, token, value): the first `taken` tokens are in the cache from `start` on, and `token` follows.

        `value` is its log-probability in nats. While `taken` is less than all, the token means nothing.
        """
        program = _fitting(self._programs["prefill"], len(tokens))
        taken = min(program.length, len(tokens))
        inputs = _padded(tokens[:taken], program.length), np.int32(start), np.int32(taken)
        state, token, value = program.run(self._params, state, *inputs, *_as_inputs(sampling))
        return state, taken, *_host(token, value)

    def decode(self, state: State, token: int, position: int, sampling: Sampling) -> tuple[State, int, float]:
        """(state, next token, its log-probability in nats) after `token` at `position`."""
        inputs = np.array([token], np.int32), np.int32(position)
        state, following, value = self._programs["decode"][0].run(self._params, state, *inputs, *_as_inputs(sampling))
        return state, *_host(following, value)

    def score(
        self, state: State, tokens: Sequence[int], targets: Sequence[int], start: int, sampling: Sampling
    ) -> tuple[State, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
        """(state, [values, gaps, masses] by position) for as many of `tokens` as one run takes; see `judge` there.

        `targets[i]` is the token claimed to follow `tokens[i]`.
        """
        program = _fitting(self._programs["score"], len(tokens))
        taken = min(program.length, len(tokens))
        inputs = _padded(tokens[:taken], program.length), _padded(targets[:taken], program.length), np.int32(start)
        state, *judged = program.run(self._params, state, *inputs, *_as_inputs(sampling))
        return state, np.concatenate(jax.device_get(judged))[:, :taken]

    def call(self, tokens: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The function's output f32[D] for one sequence that the longest program holds."""
        program = next(program for program in self._programs["call"] if program.length >= len(tokens))
        _, output = program.run(self._params, [], _padded(tokens, program.length), np.int32(len(tokens)))
        first: np.ndarray[tuple[int], np.dtype[np.float32]] = np.asarray(output)[0]
        return first


def load(bundle: Bundle, grant: Grant | None = None) -> Model:
    """The bundle, checked, compiled and measured; as one's own without a `grant`.

    Raises `StoreError(corrupt_chunk)`, `EngineError(worker_failed)` for lengths and roles that do not keep the convention,
    and `EngineError(bundle_refused)` for programs that do not keep its rules.
    """
    grant = grant or own_grant()
    manifest = bundle.manifest
    _check_roles(manifest)
    bundle.verify()
    began = time.monotonic()
    params = map_weights(bundle)
    try:
        programs = {
            role: [_compile(bundle, program, params, grant) for program in manifest.role(role)]
            for role in ("prefill", "decode", "score", "call")
        }
        model = Model(manifest, params, programs)
        compiled = time.monotonic()
        model.rates = _measure(model)
    except (TypeError, ValueError, jax.errors.JaxRuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise EngineError(Code.WORKER_FAILED, f"A program of {manifest.name} cannot be run: {why}") from error
    times = f"compiled in {compiled - began:.1f} s, measured in {time.monotonic() - compiled:.1f} s"
    print(
        f"{manifest.name} ({bundle.cid}): {times}; {model.numerics_class}; {model.rates}", file=sys.stderr, flush=True
    )
    return model


def _check_roles(manifest: Manifest) -> None:
    """Raises `EngineError(worker_failed)` unless each entry finds its programs, in lengths that always fit."""
    needed = {GENERATE: ("prefill", "decode"), SCORE: ("score",), CALL: ("call",)}
    for role in (role for entry in manifest.entries for role in needed[entry]):
        if not manifest.role(role):
            raise EngineError(Code.WORKER_FAILED, f"{manifest.name} has no program for {role}.")
    for role in ("prefill", "score"):
        lengths = [*(program.length for program in manifest.role(role)), manifest.context_tokens_max]
        if any(longer % shorter for shorter, longer in pairwise(lengths)):
            raise EngineError(Code.WORKER_FAILED, f"Lengths of {manifest.name}'s {role} do not divide: {lengths}.")


def _compile(bundle: Bundle, program: Program, params: list[jax.Array], grant: Grant) -> _Compiled:
    with (bundle.path / "programs" / program.name).open("rb") as stream:
        artifact = stream.read(PROGRAM_BYTES_MAX + 1)  # a longer one is refused, however long it is
    signature = _signature(bundle.manifest, program, params)
    try:
        loaded = load_untrusted(program.name, artifact, signature, flops=program.flops, slots=1, grant=grant)
    except EngineError as error:
        name = f"{bundle.manifest.name}: program {program.name}"
        raise EngineError(error.code, f"{name}: {error.message}.") from None
    return _Compiled(program.length, loaded.run)


def _signature(manifest: Manifest, program: Program, params: list[jax.Array]) -> Signature:
    tokens, token, row = Aval("int32", (1, program.length)), Aval("int32", (1,)), Aval("float32", (1, program.length))
    number, value, output = Aval("int32", ()), Aval("float32", (1,)), Aval("float32", (1, None))
    sampling = (Aval("uint32", (2,)), Aval("float32", ()), Aval("float32", ()))
    inputs, outputs = {
        "prefill": ((tokens, number, number, *sampling), (token, value)),
        "decode": ((token, number, *sampling), (token, value)),
        "score": ((tokens, tokens, number, *sampling), (row, row, row)),
        "call": ((tokens, number), (output,)),
    }[program.role]
    state = [] if program.role == "call" else [Aval(tensor.dtype, tensor.shape) for tensor in manifest.state]
    return Signature(tuple(Aval(each.dtype.name, each.shape) for each in params), tuple(state), inputs, outputs)


def _measure(model: Model) -> Rates:
    """Times one run of each role; of text the shortest length, since many nodes may start at once on one machine."""
    sampling, state = Sampling.of(Parameters()), model.zeros()
    prefill = decode = score = call = 0
    if model.lengths("decode"):
        state, token, _ = model.decode(state, 0, 0, sampling)  # the first run reads the weights from the disk
        began = time.monotonic()
        for position in range(1, 1 + _DECODE_STEPS):
            state, token, _ = model.decode(state, token, position, sampling)
        decode = _milli(_DECODE_STEPS, began)
    for length in model.lengths("prefill")[:1]:
        state, *_ = model.prefill(state, [0], 0, sampling)  # a program's first run is several times slower
        began = time.monotonic()
        state, *_ = model.prefill(state, [0] * length, 0, sampling)
        prefill = _milli(length, began)
    for length in model.lengths("score")[:1]:
        state, _ = model.score(state, [0], [0], 0, sampling)
        began = time.monotonic()
        model.score(state, [0] * length, [0] * length, 0, sampling)
        score = _milli(length, began)
    for length in model.lengths("call")[-1:]:
        model.call([0])
        began = time.monotonic()
        model.call([0] * length)
        call = _milli(1, began)
    return Rates(prefill, decode, score, call)


def _milli(count: int, began: float) -> int:
    return round(1e3 * count / max(time.monotonic() - began, 1e-6))


def _fitting(programs: Sequence[_Compiled], count: int) -> _Compiled:
    """The program to take the next of `count` tokens: the shortest that holds all, unless it were mostly padding.

    Lengths divide one another and the context, and only the last run is padded: so a run never ends beyond the context.
    """
    whole = next((program for program in programs if program.length >= count), None)
    if whole and (count > whole.length // 2 or whole is programs[0]):
        return whole
    return next(program for program in reversed(programs) if program.length <= count)


def _padded(tokens: Sequence[int], length: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded


def _as_inputs(sampling: Sampling) -> tuple[Any, ...]:
    return sampling.seed, sampling.temperature, sampling.top_p


def _host(token: jax.Array, value: jax.Array) -> tuple[int, float]:
    """Waits for the run."""
    tokens, values = jax.device_get((token, value))
    return int(tokens[0]), float(values[0])
