"""What a tolerance tells apart: honest windows of a text bundle, and those of everybody who might cheat with it.

Each adversary hands in tokens and log-probabilities; they are scored by the true bundle as a checker would, window by
window, and judged by the tolerance. A window's power is the share of its windows that are refuted, an answer's that of
answers with at least one. Cheats that sampling alone would show are tried on sampled prompts alone: at temperature 0 seed
and top-p say nothing. Where one of them writes just what was ordered, nobody was cheated, and it does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from ..node.engine import entries
from ..node.engine.bundles import Bundle, BundleStore
from ..node.engine.entries import Step
from ..node.engine.kept import Kept
from ..node.engine.loading import Grant, own_grant
from ..node.engine.programs import Model, load
from ..node.engine.turns import Task, Turns, alone
from ..protocol.bundle import Cheat, Tolerance
from ..protocol.errors import FallowError
from ..protocol.limits import WINDOW_TOKENS
from ..protocol.work import Parameters, Piece, Work
from .recipe import Progress
from .rounded import ROUNDINGS, Change, Rounding, altered_bundle, rounded

Tokens: TypeAlias = tuple[int, ...]
Values: TypeAlias = tuple[int, ...]
Answered: TypeAlias = tuple[Tokens, Values]
Refutes: TypeAlias = Callable[[Sequence[int], Piece, int, Tolerance], str | None]
"""The verifier's rule, `verifier.compare.refutes`: whose layer is above this one."""

SAMPLINGS: Final = ((0, 1_000_000), (800, 950_000), (1200, 1_000_000), (300, 700_000))
"""Temperature in thousandths, top-p in ppm; prompts take them in turn."""
ANSWER_POWER: Final = 0.99
"""Of answers of every adversary that changes more than a few tokens; with less, the tolerance separates nothing."""
HONEST_PPM: Final = 100
"""Windows of a million that may be refuted though they are honest."""
ROOM: Final = 10
"""A tolerance that is proposed is so many times the largest honest difference; devices that were not measured need some."""
TUNED: Final = 0.01
"""Of each weight, what a fine-tuned model is off."""
FLIPPED: Final = 3
SUBTLE: Final = ("flipped-tokens", "other-top-p", "bfloat16-weights")
"""What may pass in a short answer, or is no cheat everywhere: reported, and no reason to refuse a tolerance."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, and how it is sampled."""

    prompt: Tokens
    parameters: Parameters

    @property
    def sampled(self) -> bool:
        return self.parameters.temperature_milli > 0


@dataclass(slots=True)
class Seen:
    """Windows of one kind: the largest difference of each, and whether the tolerance refutes it."""

    value_micro: list[int] = field(default_factory=list)
    gap_micro: list[int] = field(default_factory=list)
    beyond_ppm: list[int] = field(default_factory=list)
    refuted: list[bool] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    """Whether any of its windows is."""

    @property
    def window_power(self) -> float:
        return sum(self.refuted) / len(self.refuted) if self.refuted else 0.0

    @property
    def answer_power(self) -> float:
        return sum(self.answers) / len(self.answers) if self.answers else 0.0


@dataclass(frozen=True)
class Report:
    """What was measured, by kind; the first is `honest`."""

    bundle: Bundle
    tolerance: Tolerance
    seen: dict[str, Seen]
    resumed_otherwise: int
    device: str
    variants: frozenset[str] = frozenset()
    """Of the programs that wrote honest texts side by side."""

    @property
    def false_reject_upper(self) -> float:
        """At 95 % confidence, honest windows are refuted no more often: 3 / n for none (Hanley, Lippman-Hand 1983)."""
        honest = self.seen["honest"].refuted
        return (3 + 2 * sum(honest)) / len(honest)

    def problems(self) -> list[str]:
        """Why the tolerance must not be published; empty if it separates."""
        honest = self.seen["honest"]
        found = (
            [f"{sum(honest.refuted)} of {len(honest.refuted)} honest windows are refuted"]
            if any(honest.refuted)
            else []
        )
        for name, seen in self.seen.items():
            if name not in ("honest", *SUBTLE) and seen.answers and seen.answer_power < ANSWER_POWER:
                found.append(f"{1 - seen.answer_power:.0%} of the answers by {name} pass")
        return found

    def measured(self) -> Tolerance:
        """The tolerance with its error rates, as a manifest carries it."""
        honest = self.seen["honest"]
        cheats = tuple(
            Cheat(name, len(seen.refuted), round(1e6 * (1 - seen.window_power)))
            for name, seen in self.seen.items()
            if name != "honest" and seen.refuted
        )
        return replace(
            self.tolerance,
            samples=len(honest.refuted),
            false_reject_ppm=round(1e6 * sum(honest.refuted) / len(honest.refuted)),
            cheats=cheats,
            calibrated_by=(
                f"fallow bundle calibrate {self.bundle.manifest.name}: {len(honest.answers)} answers on {self.device}."
                f" Honest at most {max(honest.value_micro)} micro-nats, gaps {max(honest.gap_micro)}."
            ),
        )


def proposed(seen: Seen, before: Tolerance) -> Tolerance:
    """A tolerance from honest windows alone: `ROOM` times the largest difference of each kind, and at least a thousandth."""
    return replace(
        before,
        value_micro=max(1_000, ROOM * max(seen.value_micro)),
        gap_micro=max(1_000, ROOM * max(seen.gap_micro)),
        mass_ppm=max(500, ROOM * max(seen.beyond_ppm)),
    )


def measure(
    bundle: Bundle,
    asked: Sequence[Asked],
    store: BundleStore,
    refutes: Refutes,
    anew: bool,
    progress: Progress,
    device: str,
) -> Report:
    """Every kind was tried on every prompt that it means something for. With `anew`, the tolerance is proposed from the
    honest windows; else it is the bundle's own. All weights run in the same programs: the store keeps them compiled."""
    grant = own_grant(Kept(store.compile_cache))
    model, seen = load(bundle, grant), dict[str, Seen]()
    honest: list[Answered] = []
    resumed = 0
    for number, one in enumerate(asked):
        progress("honest", number / len(asked))
        honest.append(_written(model, one.prompt, one.parameters))
        resumed += _resumed(model, one, honest[-1])
    progress("honest, side by side", 0.5)
    beside, variants = _written_together(model, asked)
    twice, both = [*asked, *asked], [*honest, *beside]
    figures = [_figures(model, one, answer) for one, answer in zip(twice, both, strict=True)]
    tolerance = bundle.manifest.tolerance
    if anew:
        tolerance = proposed(_judged(twice, both, figures, tolerance, refutes), tolerance)
    seen["honest"] = _judged(twice, both, figures, tolerance, refutes)
    for name, who, answers in _cheats(bundle, model, asked, honest, store.downloads, grant, progress):
        figures = [_figures(model, one, answer) for one, answer in zip(who, answers, strict=True)]
        seen[name] = _judged(who, answers, figures, tolerance, refutes)
    return Report(bundle, tolerance, seen, resumed, device, variants)


def _cheats(
    bundle: Bundle,
    model: Model,
    asked: Sequence[Asked],
    honest: Sequence[Answered],
    downloads: Path,
    grant: Grant,
    progress: Progress,
) -> Iterator[tuple[str, Sequence[Asked], list[Answered]]]:
    """Each adversary, the prompts it was tried on, and what it answered."""
    cheap: list[Answered] = []
    for name, weights in _models(bundle).items():
        progress(name, 0.0)
        with ExitStack() as stack:
            other = load(stack.enter_context(altered_bundle(bundle, weights, downloads)), grant)
            made = [_written(other, one.prompt, one.parameters) for one in asked]
        cheap = made if name == "int4-weights" else cheap
        yield name, asked, made
    progress("prompts, samplings and tokens", 0.5)
    scored = [(tokens, _scored(model, one, tokens)) for one, (tokens, _) in zip(asked, cheap, strict=True)]
    differs = [i for i, (one, other) in enumerate(zip(scored, honest, strict=True)) if one[0] != other[0]]
    yield "cheap-text-scored-by-the-full-model", [asked[i] for i in differs], [scored[i] for i in differs]
    long = [one for one in asked if len(one.prompt) > 1]
    yield (
        "truncated-context",
        long,
        [_written(model, one.prompt[len(one.prompt) // 2 :], one.parameters) for one in long],
    )
    for name, change in _SAMPLINGS.items():
        pairs = [
            (one, _written(model, one.prompt, change(one.parameters)), mine)
            for one, mine in zip(asked, honest, strict=True)
            if one.sampled and change(one.parameters) != one.parameters
        ]
        cheats = [(one, answer) for one, answer, mine in pairs if answer[0] != mine[0]]
        yield name, [one for one, _ in cheats], [answer for _, answer in cheats]
    shifted = [*honest[1:], *honest[:1]]
    moved = [(one, other) for one, mine, other in zip(asked, honest, shifted, strict=True) if mine[0] != other[0]]
    yield "output-of-another-prompt", [one for one, _ in moved], [other for _, other in moved]
    # Who changes a text that the model wrote has the model, and states its values of what stands there now.
    flipped = [_flipped(tokens, number) for number, (tokens, _) in enumerate(honest)]
    yield "flipped-tokens", asked, [(t, _scored(model, one, t)) for one, t in zip(asked, flipped, strict=True)]
    if ends := bundle.manifest.end_tokens:
        cut = [(*tokens[: len(tokens) // 2], ends[0]) for tokens, _ in honest]
        yield "early-stop", asked, [(t, _scored(model, one, t)) for one, t in zip(asked, cut, strict=True)]


def _models(bundle: Bundle) -> dict[str, Change]:
    """Other weights, sold as the bundle's."""
    generator = np.random.Generator(np.random.PCG64(5))

    def tuned(
        matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        noise = generator.standard_normal(matrix.shape, np.float32)
        return matrix * (1 + np.float32(TUNED) * noise)

    def by(rounding: Rounding) -> Change:
        return lambda _name, array: rounded(array, rounding)

    last = max(
        (int(layer) for name in bundle.manifest.parameters if (layer := name.partition(".")[0]).isdigit()), default=-1
    )

    def without_its_last_layer(
        name: str, array: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """What a layer adds is by these two: a model of one layer less, in the programs of the whole one."""
        return array * np.float32(name not in (f"{last}.o", f"{last}.down"))

    smaller = {"smaller-model": without_its_last_layer} if f"{last}.down" in bundle.manifest.parameters else {}
    weights = {f"{name}-weights": by(rounding) for name, rounding in ROUNDINGS.items()}
    return weights | {"fine-tuned-model": by(tuned)} | smaller


_SAMPLINGS: Final[dict[str, Callable[[Parameters], Parameters]]] = {
    "other-seed": lambda p: replace(p, seed=p.seed + 1),
    "other-temperature": lambda p: replace(p, temperature_milli=p.temperature_milli * 5 // 4),
    "other-top-p": lambda p: replace(p, top_p_ppm=p.top_p_ppm * 9 // 10),
}


def _flipped(written: Tokens, number: int) -> Tokens:
    """A few tokens exchanged for others of the same answer."""
    tokens, generator = list(written), np.random.Generator(np.random.PCG64(number))
    for place in generator.permutation(len(tokens))[:FLIPPED]:
        others = sorted(set(tokens) - {tokens[place]})
        tokens[place] = others[int(generator.integers(len(others)))] if others else tokens[place] ^ 1
    return tuple(tokens)


def _written(model: Model, prompt: Tokens, parameters: Parameters) -> Answered:
    return _answered(list(alone(model, parameters, entries.generate(model.manifest, parameters, Work((prompt,))))))


def _written_together(model: Model, asked: Sequence[Asked]) -> tuple[list[Answered], frozenset[str]]:
    """All of them side by side, by the programs that a node under load runs; and which variants of them ran."""
    while model.load_next():
        pass
    turns, tasks, variants = Turns([model], prefix_bytes=0), list[Task](), set[str]()
    written: list[list[Step]] = [[] for _ in asked]
    failed: list[FallowError] = []
    for one, steps in zip(asked, written, strict=True):

        def give(step: Step, ran: frozenset[str], steps: list[Step] = steps) -> None:
            steps.append(step)
            variants.update(ran)

        writing = entries.generate(model.manifest, one.parameters, Work((one.prompt,)))
        tasks.append(Task(b"", model, one.parameters, writing, give, failed.append, credit=2**31))
        turns.add(tasks[-1])
    while any(task.request for task in tasks) and not failed:
        turns.run()
    if failed:
        raise failed[0]
    return [_answered(steps) for steps in written], frozenset(variants)


def _answered(steps: Sequence[Step]) -> Answered:
    return tuple(s.piece.tokens[0] for s in steps), tuple(s.piece.values_micro[0] for s in steps)


def _resumed(model: Model, one: Asked, answer: Answered) -> bool:
    """Whether the second half comes out otherwise where another node goes on."""
    half = len(answer[0]) // 2
    if not half:
        return False
    rest = replace(one.parameters, max_tokens=one.parameters.max_tokens - half)
    return _written(model, (*one.prompt, *answer[0][:half]), rest)[0] != answer[0][half:]


def _scored(model: Model, one: Asked, tokens: Tokens) -> Values:
    return tuple(value for piece in _figures(model, one, (tokens, ())) for value in piece.values_micro)


def _figures(model: Model, one: Asked, answer: Answered) -> list[Piece]:
    """What a checker finds, window by window."""
    found, tokens = [], answer[0]
    for begin in range(0, len(tokens), WINDOW_TOKENS):
        window = tokens[begin : begin + WINDOW_TOKENS]
        work = Work(((*one.prompt, *tokens[: begin + len(window)]),), claimed=len(window))
        steps = list(alone(model, one.parameters, entries.score(model.manifest, work)))
        found.append(steps[-1].piece)
    return found


def _judged(
    asked: Sequence[Asked],
    answers: Sequence[Answered],
    figures: Sequence[Sequence[Piece]],
    tolerance: Tolerance,
    refutes: Refutes,
) -> Seen:
    seen = Seen()
    for one, (_, values), pieces in zip(asked, answers, figures, strict=True):
        begin, any_refuted = 0, False
        for piece in pieces:
            own = values[begin : begin + len(piece.values_micro)]
            begin += len(piece.values_micro)
            top_p = one.parameters.top_p_ppm
            refuted = refutes(own, piece, top_p, tolerance) is not None
            nucleus = one.sampled and top_p < 1_000_000
            seen.value_micro.append(max(abs(a - b) for a, b in zip(own, piece.values_micro, strict=True)))
            seen.gap_micro.append(max(piece.gaps_micro))
            seen.beyond_ppm.append(max(0, max(piece.masses_ppm) - top_p) if nucleus else 0)
            seen.refuted.append(refuted)
            any_refuted |= refuted
        if pieces:
            seen.answers.append(any_refuted)
    return seen
