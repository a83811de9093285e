"""The entries of a bundle as a node runs them: from a `Work` to the pieces of the answer.

An entry is a generator. It yields what it needs computed (`Fill`, `Next`, `Judge`, `Apply`), is sent the result, and yields a
`Step` for each piece of its answer. It touches no array of the model's: what it asks for is run beside what others ask for, in
one batch where that is quicker, and it is dropped by closing it. This is also where a test network makes a liar:
`worker.main(run=...)` takes any `Run`, and everything around it, sealing, transcript and transport, stays honest machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Final, TypeAlias

import numpy as np

from ...protocol.bundle import CALL, GENERATE, Manifest
from ...protocol.errors import Code, EngineError
from ...protocol.limits import INPUT_TOKENS_MAX
from ...protocol.work import Parameters, Piece, Work
from .messages import DONE, EOS, LENGTH

_WORST_MICRO: Final = 2**40
"""What stands for a log-probability or gap that is no number: out of every tolerance, so that a check fails closed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece, and how it ends the job if it does. Nothing is sent for it."""

    piece: Piece
    end: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """The sequence begins with these tokens. Sent: the token that follows, and its log-probability in nats."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Next:
    """The sequence goes on with this token. Sent: the token that follows, and its log-probability in nats."""

    token: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Sent: [values, gaps, masses] of the last `claimed` tokens, f32[3, claimed]; see `judge` in spec/07-bundles.md."""

    tokens: tuple[int, ...]
    claimed: int


@dataclass(frozen=True, slots=True)
class Apply:
    """The function on each of these inputs. Sent: f32[inputs, D]."""

    rows: tuple[tuple[np.ndarray[Any, Any], ...], ...]
    """Of each input what a program takes of one slot: tokens i32[n], or the manifest's inputs."""


Request: TypeAlias = Fill | Next | Judge | Apply
Steps: TypeAlias = Generator[Request | Step, Any, None]
Run: TypeAlias = Callable[[Manifest, str, Parameters, Work], Steps]
"""(manifest, entry, parameters, work) to requests and steps. The last step, and only it, has an `end`. Who asks for more than
the work needs, the same again and again, takes more steps than the daemon lets a worker take (`jobs.beat_untrusted`)."""


def run_entry(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """The honest `Run`. Raises `EngineError` before anything is computed: `unknown_entry`, `input_too_long`, `bad_record`."""
    if entry not in manifest.entries:
        raise EngineError(Code.UNKNOWN_ENTRY, f"{manifest.name} has no entry {entry[:64]!r}.")
    if entry == CALL:
        return call(manifest, work)
    return generate(manifest, parameters, work) if entry == GENERATE else score(manifest, work)


def generate(manifest: Manifest, parameters: Parameters, work: Work) -> Steps:
    """One token a piece, up to an end token, which is part of the answer, or exactly `max_tokens`."""
    tokens = _one_sequence(work)
    if not parameters.max_tokens or work.claimed:
        raise EngineError(Code.BAD_RECORD, "`generate` takes at least one token to make, and no claim.")
    _check_length(manifest, len(tokens) + parameters.max_tokens)
    token, value = yield Fill(tokens)
    for count in range(1, parameters.max_tokens + 1):
        end = EOS if token in manifest.end_tokens else LENGTH if count == parameters.max_tokens else ""
        yield Step(Piece(tokens=(token,), values_micro=(_micro(value, -_WORST_MICRO),)), end)
        if end:
            return
        token, value = yield Next(token)


def score(manifest: Manifest, work: Work) -> Steps:
    """One piece: for each claimed token its log-probability, its gap and the mass likelier than it."""
    tokens = _one_sequence(work)
    if not work.claimed:
        raise EngineError(Code.BAD_RECORD, "`score` takes at least one claimed token.")
    _check_length(manifest, len(tokens))
    columns = yield Judge(tokens, work.claimed)
    values, gaps, masses = columns.tolist()
    piece = Piece(
        values_micro=tuple(_micro(value, -_WORST_MICRO) for value in values),
        gaps_micro=tuple(_micro(gap, _WORST_MICRO) for gap in gaps),
        masses_ppm=tuple(max(0, _micro(mass, 1_000_000)) for mass in masses),
    )
    yield Step(piece, DONE)


def call(manifest: Manifest, work: Work) -> Steps:
    """One piece: the outputs f32[inputs, D]."""
    if work.claimed:
        raise EngineError(Code.BAD_RECORD, "`call` takes no claim.")
    if bool(manifest.inputs) != bool(work.arrays):
        kind = "arrays" if manifest.inputs else "tokens"
        raise EngineError(Code.BAD_RECORD, f"{manifest.name} is a function of {kind}.")
    rows = [_arrays_of(manifest, content) for content in work.arrays]
    longest = max(program.length for program in manifest.role(CALL))
    for sequence in work.sequences:
        _check_length(manifest, len(sequence), longest)
        rows.append((np.array(sequence, np.int32),))
    tensor = yield Apply(tuple(rows))
    yield Step(Piece(tensor=tensor.astype("<f4").tobytes(), shape=tensor.shape), DONE)


def _arrays_of(manifest: Manifest, content: bytes) -> tuple[np.ndarray[Any, Any], ...]:
    """The manifest's inputs out of one input's bytes. Raises `EngineError(bad_record)` unless they fill them exactly."""
    arrays, begin = [], 0
    for each in manifest.inputs:
        dtype = np.dtype(each.dtype).newbyteorder("<")
        end = begin + dtype.itemsize * prod(each.shape)
        if end > len(content):
            break
        flat = np.frombuffer(content[begin:end], dtype)
        # [REJECT] A bool that is neither 0 nor 1: what a program makes of it, no rule says.
        if dtype == np.bool_ and flat.view(np.uint8).max() > 1:
            raise EngineError(
                Code.BAD_RECORD, f"The input {each.name} of {manifest.name} has a bool that is neither 0 nor 1."
            )
        arrays.append(flat.reshape(each.shape).astype(each.dtype))
        begin = end
    if len(arrays) != len(manifest.inputs) or begin != len(content):
        wanted = ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in manifest.inputs)
        raise EngineError(Code.BAD_RECORD, f"{manifest.name} takes {wanted}, not {len(content)} bytes.")
    return tuple(arrays)


def _one_sequence(work: Work) -> tuple[int, ...]:
    if len(work.sequences) != 1:
        raise EngineError(Code.BAD_RECORD, "Text entries take one sequence.")
    return work.sequences[0]


def _check_length(manifest: Manifest, tokens: int, longest: int = INPUT_TOKENS_MAX) -> None:
    if tokens > (most := min(manifest.context_tokens_max, longest)):
        raise EngineError(Code.INPUT_TOO_LONG, f"{tokens} tokens in all; {manifest.name} takes {most}.")


def _micro(value: float, if_none: int) -> int:
    """Millionths, half to even; `if_none` for what is no number or beyond every bound."""
    return round(value * 1e6) if isfinite(value) and abs(value) * 1e6 < _WORST_MICRO else if_none
