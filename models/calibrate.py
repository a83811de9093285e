"""How far honest runs of a bundle differ, and how far dishonest ones: `python -m fallow.models.calibrate NAME`.

The recipes' tolerances come from here. Text: transcripts are generated, then scored window by window and as a whole,
and resumed in the middle. Functions of tokens: inputs are computed in every padded length that holds them. Functions of
arrays: as `measure.py` says, for random inputs or those of `--inputs FILE`. For the first two, `--kept FILE` keeps what
was computed, or compares with what FILE already holds: run once as it is, then with `--weights bfloat16` (a cheat),
another jaxlib, or `XLA_FLAGS=--xla_cpu_max_isa=AVX2`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..node.engine import entries
from ..node.engine.bundles import Bundle
from ..node.engine.device import configure
from ..node.engine.programs import Model, load
from ..node.engine.turns import alone
from ..protocol.bundle import CALL
from ..protocol.errors import FallowError
from ..protocol.limits import WINDOW_TOKENS
from ..protocol.work import Parameters, Piece, Work
from .measure import distances, random_inputs, streamed
from .publish import default_store
from .recipes import recipe
from .rounded import ROUNDINGS, rounded_bundle

SUBJECTS: Final = (
    *("the moon", "sourdough bread", "prime numbers", "the Roman Empire", "photosynthesis", "chess openings"),
    *("electric cars", "the water cycle", "jazz", "black holes", "knitting", "the French Revolution"),
)
QUESTIONS: Final = ("Explain {} to a child.", "Write a short poem about {}.")
SAMPLINGS: Final = (
    (0, 1_000_000),
    (800, 950_000),
    (1200, 1_000_000),
    (300, 700_000),
)
"""Temperature in thousandths, top-p in ppm; prompts take them in turn."""
RANDOM_INPUTS: Final = 64


@dataclass
class TextDifferences:
    """Largest differences, in the units of `Tolerance`; `values_micro` has all of one prompt's in one row."""

    tokens: int = 0
    value_micro: int = 0
    gap_micro: int = 0
    mass_beyond_ppm: int = 0
    resumed_otherwise: int = 0
    values_micro: list[list[int]] = field(default_factory=list)

    def add(self, values: tuple[int, ...], piece: Piece, parameters: Parameters) -> None:
        """Counts one scoring of tokens whose executor said `values`."""
        apart = [abs(a - b) for a, b in zip(values, piece.values_micro, strict=True)]
        self.values_micro.append(apart)
        self.tokens += len(apart)
        self.value_micro = max(self.value_micro, *apart)
        self.gap_micro = max(self.gap_micro, *piece.gaps_micro)
        if parameters.temperature_milli and parameters.top_p_ppm < 1_000_000:
            self.mass_beyond_ppm = max(self.mass_beyond_ppm, max(piece.masses_ppm) - parameters.top_p_ppm)

    def summary(self, threshold: int) -> dict[str, object]:
        """Without the single values: how many exceed `threshold`, and after how many tokens the first one does."""
        every = np.concatenate(self.values_micro)
        first = [next((i + 1 for i, v in enumerate(row) if v > threshold), None) for row in self.values_micro]
        rest = {key: value for key, value in asdict(self).items() if key != "values_micro"}
        caught = [index for index in first if index]
        return rest | {
            "value_micro_median": int(np.median(every)),
            "share_above_tolerance": round(float((every > threshold).mean()), 3),
            "scorings_caught": f"{len(caught)} of {len(first)}, at the latest by token {max(caught, default=0)}",
        }


def measure_text(bundle: Bundle, model: Model, tokens: int, kept: Path | None) -> dict[str, object]:
    """Generates (or takes from `kept`) a transcript per prompt, and scores each."""
    differences = TextDifferences()
    transcripts = json.loads(kept.read_text()) if kept and kept.exists() else None
    own = transcripts is None
    made = []
    for index, prompt in enumerate(_prompts(bundle)):
        milli, top_p = SAMPLINGS[index % len(SAMPLINGS)]
        parameters = Parameters(tokens, milli, top_p, seed=index * 2**33 + index)
        if transcripts is None:
            answer, values = _generate(model, parameters, prompt)
        else:
            answer, values = map(tuple, transcripts[index])
        made.append((answer, values))
        for begin in range(0, len(answer), WINDOW_TOKENS):
            end = begin + WINDOW_TOKENS
            work = Work(((*prompt, *answer[:end]),), claimed=len(answer[begin:end]))
            differences.add(
                values[begin:end], _last(alone(model, parameters, entries.score(model.manifest, work))), parameters
            )
        work = Work(((*prompt, *answer),), claimed=len(answer))
        differences.add(values, _last(alone(model, parameters, entries.score(model.manifest, work))), parameters)
        if own and (half := len(answer) // 2):
            rest = Parameters(tokens - half, milli, top_p, seed=parameters.seed)
            differences.resumed_otherwise += _generate(model, rest, (*prompt, *answer[:half]))[0] != answer[half:]
    if kept and own:
        kept.write_text(json.dumps(made))
    return differences.summary(bundle.manifest.tolerance.value_micro)


def measure_calls(bundle: Bundle, kept: Path | None) -> dict[str, object]:
    """1 - cosine in ppm: of every input between padded lengths, and to what `kept` holds."""
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    texts = [question.format(subject) for subject in SUBJECTS for question in QUESTIONS] + ["word " * 100]
    programs = {p.length: p for p in load(bundle).programs(CALL) if p.program.slots == 1}
    rows, between = [], 0.0
    for tokens in (tokenizer.encode(text).ids for text in texts):
        outputs = []
        for length in (length for length in programs if length >= len(tokens)):
            padded = np.zeros((1, length), np.int32)
            padded[0, : len(tokens)] = tokens
            _, (output,) = programs[length].run([], padded, np.array([len(tokens)], np.int32))
            outputs.append(output[0])
        between = max(between, *(_apart_ppm(outputs[0], other) for other in outputs))
        rows.append(outputs[0])
    report: dict[str, object] = {"inputs": len(rows), "between_lengths_ppm": between}
    if kept and kept.exists():
        ppm = [_apart_ppm(a, b) for a, b in zip(rows, np.load(kept), strict=True)]
        report |= {"to_kept_ppm_least": min(ppm), "to_kept_ppm_most": max(ppm)}
    elif kept:
        with kept.open("wb") as stream:
            np.save(stream, np.stack(rows))
    return report


def measure_arrays(name: str, downloads: Path, given: Path | None) -> dict[str, object]:
    """The tolerance that is measured for the recipe's function, field by field: for the inputs in a file, or random ones.

    What a step gives back under the name of an input, the next step is given.
    """
    model = recipe(name).make(downloads, lambda _stage, _fraction: None)
    back = {tensor.name for tensor in model.outputs}
    fresh = [tensor for tensor in model.inputs if tensor.name not in back]
    rows = random_inputs(fresh, None, RANDOM_INPUTS)
    if given is not None:
        with np.load(given) as arrays:
            rows = list(zip(*(arrays[tensor.name] for tensor in fresh), strict=True))
    steps = [dict(zip((tensor.name for tensor in fresh), row, strict=True)) for row in rows]
    return asdict(distances(model, streamed(model, steps)).tolerance())


def _prompts(bundle: Bundle) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    template = ImmutableSandboxedEnvironment().from_string(
        bundle.manifest.chat_template or "{{ messages[0]['content'] }}"
    )
    chats = [[{"role": "user", "content": q.format(subject)}] for q in QUESTIONS for subject in SUBJECTS]
    texts = [template.render(messages=chat, add_generation_prompt=True) for chat in chats]
    return [tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]


def _generate(model: Model, parameters: Parameters, prompt: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    steps = list(alone(model, parameters, entries.generate(model.manifest, parameters, Work((tuple(prompt),)))))
    return tuple(s.piece.tokens[0] for s in steps), tuple(s.piece.values_micro[0] for s in steps)


def _last(steps: Iterable[entries.Step]) -> Piece:
    return [step.piece for step in steps][-1]


def _apart_ppm(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - cosine of unit vectors, as half their squared distance: exact where the cosine rounds to 1."""
    return round(float(np.square(a.astype(np.float64) - b).sum()) / 2 * 1e6, 4)


def main() -> int:
    """Prints what was measured, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m fallow.models.calibrate", description=measure_text.__doc__)
    parser.add_argument("name")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="keep results here, or compare with what is kept here"
    )
    parser.add_argument(
        "--inputs", type=Path, metavar="FILE", help="an .npz of a function's inputs by name, one under another"
    )
    parser.add_argument("--weights", choices=sorted(ROUNDINGS), help="round the weights first, as a cheat would")
    parser.add_argument(
        "--tokens",
        type=int,
        default=48,
        help="per transcript: more than one window, so that windows and whole are run differently",
    )
    arguments = parser.parse_args()
    store = default_store()
    configure(store.compile_cache)
    try:
        bundle = store.find(arguments.name)
        if bundle is None:
            parser.error(f"build {arguments.name} first")
        if bundle.manifest.inputs:
            print(json.dumps(measure_arrays(arguments.name, store.downloads, arguments.inputs), indent=1))
            return 0
        rounded = arguments.weights and rounded_bundle(arguments.name, arguments.weights, store.downloads)
        with rounded or nullcontext(bundle) as served:
            if CALL in served.manifest.entries:
                report = measure_calls(served, arguments.kept)
            else:
                report = measure_text(served, load(served), arguments.tokens, arguments.kept)
    except FallowError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"weights": arguments.weights or "as published", **report}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
