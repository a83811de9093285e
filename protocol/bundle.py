"""The manifest of a bundle: a model as data, in content-addressed parts that any node can check and run.

The calling convention of the programs stands in `spec/07-bundles.md`; a node knows no model family.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from .limits import (
    CHEATS_MAX,
    CHUNK_BYTES,
    CHUNKS_MAX,
    DEVICES_MAX,
    INPUT_TOKENS_MAX,
    INPUTS_MAX,
    PROGRAMS_MAX,
    SLOTS_MAX,
    STOP_STRINGS_MAX,
    TENSORS_MAX,
)
from .schema import Between, Hash, Ppm, Size, Text, Uint, Word

GENERATE, SCORE, CALL = "generate", "score", "call"

TensorName = Annotated[str, Size(1, 128)]
Shape = Annotated[tuple[Annotated[int, Between(1, 2**40)], ...], Size(0, 8)]
ChatTemplate = Annotated[str, Size(1, 64 * 1024)]
"""A Jinja template, as model publishers ship it; rendered in Jinja's sandbox, by clients only."""


DTYPES: Final = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128",
})  # fmt: skip
"""Element types of arrays, in NumPy's words: those that programs may hold."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle, as the BLAKE3 hashes of its pieces of `CHUNK_BYTES` (the last may be shorter)."""

    length_bytes: Uint
    """Of the whole file."""
    chunks: Annotated[tuple[Hash, ...], Size(1, CHUNKS_MAX)]
    """Hashes of its pieces, in their order."""

    def __post_init__(self) -> None:
        if len(self.chunks) != max(1, -(-self.length_bytes // CHUNK_BYTES)):
            raise ValueError("the number of chunks does not fit the length")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array that a function takes or gives, for one of its inputs."""

    name: Word
    """For whoever calls it."""
    dtype: Word
    """Element type, in NumPy's words (`float32`)."""
    shape: Shape
    """Lengths of its dimensions; none: a single number."""

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class Carried:
    """An array that a job carries from run to run, for one sequence."""

    dtype: Word
    """Element type, in NumPy's words (`float32`)."""
    shape: Shape
    """Lengths of its dimensions, in the longest context."""
    positions_axis: Annotated[int, Between(0, 7)] | None
    """The dimension along which positions lie: as long as the program's context. Absent: it is alike in every context."""

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        if self.positions_axis is not None and self.positions_axis >= len(self.shape):
            raise ValueError("positions lie along a dimension that is not there")

    def shape_in(self, context: int) -> tuple[int, ...]:
        """Its shape in programs of that context."""
        axis = self.positions_axis
        return tuple(context if index == axis else length for index, length in enumerate(self.shape))


@dataclass(frozen=True, slots=True)
class Program:
    """One `jax.export` artifact: parameters, then state, then inputs, are all arguments."""

    name: Word
    """Names its file, too: `programs/<name>`."""
    role: Word
    """`prefill`, `decode`, `score` or `call`: what the calling convention says of its inputs and outputs."""
    slots: Annotated[int, Between(1, SLOTS_MAX)]
    """Sequences, or inputs of a `call`, that one run takes side by side: the first dimension of everything but parameters."""
    length: Annotated[int, Between(1, INPUT_TOKENS_MAX)]
    """Positions that one run takes of each: 1 for `decode` and for functions of arrays, the padded length for the others."""
    context: Annotated[int, Between(1, INPUT_TOKENS_MAX)]
    """Positions that its state holds, and below which all that it is run for have to lie; `call`: as `length`."""
    artifact: File
    """The exported program, serialised by `jax.export`."""
    flops: Uint
    """Multiply-adds times two of the static program, for default prices and time caps; recomputed by whoever relies on it."""
    memory_bytes: Uint
    """Arguments and results of one run together, the weights among them; what it needs in between, a compiler knows."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """One way to cheat, and how often it would pass unnoticed."""

    name: Word
    """What was done: `int8-weights`, `wrong-prompt`."""
    samples: Uint
    """Windows of text, or outputs, that were made so and judged."""
    false_accept_ppm: Ppm
    """Of these, those that no check by this tolerance tells from honest ones."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two honest runs on different machines may differ; measured for this bundle (`calibrated_by`)."""

    value_micro: Uint
    """Text: largest honest difference of one token's log-probability, in micro-nats. Functions: of 1 - cosine, in ppm."""
    gap_micro: Uint
    """Text: how far a token's perturbed score may lie below the best, in micro-nats. Functions: 0."""
    mass_ppm: Uint
    """Text: how far top-p's boundary may shift, in probability mass. Functions: 0."""
    samples: Uint
    """Honest windows of text, or outputs, that it was held against; 0: none."""
    false_reject_ppm: Ppm
    """Of these, those that it refuted."""
    cheats: Annotated[tuple[Cheat, ...], Size(0, CHEATS_MAX)]
    """What it was measured to tell apart."""
    calibrated_by: Text
    """The command and the sample that gave the figures."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle. Its name elsewhere is its CID: the hash of this record's envelope."""

    RECORD: ClassVar[str] = "manifest"

    name: Word
    """For people; trust lists have names of their own."""
    family: Word
    """For people; no node looks at it."""
    licence: Text
    """SPDX expression of the weights and tokenizer."""
    provenance: Text
    """Where the weights come from, for a person who wants to compare."""
    entries: Annotated[tuple[Word, ...], Size(1, 8)]
    """Of `generate`, `score` and `call`."""
    weights: File
    """One safetensors file, data 64-byte aligned so that it can be mapped and used in place."""
    parameters: Annotated[tuple[TensorName, ...], Size(0, TENSORS_MAX)]
    """Names of the tensors in the order in which every program takes them."""
    state: Annotated[tuple[Carried, ...], Size(0, TENSORS_MAX)]
    """What `prefill`, `decode` and `score` carry from run to run, all zeros at the start."""
    inputs: Annotated[tuple[Tensor, ...], Size(0, INPUTS_MAX)]
    """What `call` takes, where it is a function of arrays; none: it is one of tokens, or there is no `call`."""
    outputs: Annotated[tuple[Tensor, ...], Size(0, INPUTS_MAX)]
    """What `call` gives, all float32: one row of an answer holds them one after another."""
    programs: Annotated[tuple[Program, ...], Size(1, PROGRAMS_MAX)]
    """No two of one name."""
    tokenizer: File | None
    """A `tokenizer.json` of the Hugging Face tokenizers library; absent for functions of arrays alone."""
    chat_template: ChatTemplate | None
    """Absent if the model takes no conversation."""
    context_tokens_max: Annotated[int, Between(1, INPUT_TOKENS_MAX)]
    """Input and output together (`generate`, `score`), or one input (`call`); 1 for functions of arrays."""
    end_tokens: Annotated[tuple[Uint, ...], Size(0, STOP_STRINGS_MAX)]
    """Tokens that end a transcript; they count and are priced as any other."""
    tolerance: Tolerance
    """What a judgement allows between two honest runs."""
    devices: Annotated[int, Between(2, DEVICES_MAX)] | None = None
    """How many devices each of its programs lies over, all in one machine. Absent: one."""

    def __post_init__(self) -> None:
        for kind, named in (("programs", self.programs), ("inputs", self.inputs), ("outputs", self.outputs)):
            _check_apart(kind, [each.name for each in named])
        _check_apart("parameters", self.parameters)
        _check_apart("entries", self.entries)
        if strange := set(self.entries) - {GENERATE, SCORE, CALL}:
            raise ValueError(f"unknown entry {sorted(strange)[0]!r}")
        if CALL in self.entries and not self.outputs:
            raise ValueError("a `call` that gives nothing")
        if any(output.dtype != "float32" for output in self.outputs):
            raise ValueError("an output that is not float32")

    def files(self) -> dict[str, File]:
        """Every file of the bundle by its name on disk."""
        named = {f"programs/{program.name}": program.artifact for program in self.programs}
        tokenizer = {"tokenizer.json": self.tokenizer} if self.tokenizer else {}
        return {"weights.safetensors": self.weights, **tokenizer, **named}

    def role(self, role: str) -> tuple[Program, ...]:
        """The programs of one role: by context, then slots, then length, the least first."""
        chosen = (program for program in self.programs if program.role == role)
        return tuple(sorted(chosen, key=lambda p: (p.context, p.slots, p.length)))


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"no array has elements of {dtype!r}")


def _check_apart(kind: str, names: Collection[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"two {kind} share a name")
