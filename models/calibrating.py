"""Calibrating a bundle of this machine: prompts made for it, its report, and the same bundle with what was measured."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import jax
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ..node.engine.bundles import Bundle, BundleStore
from ..node.engine.device import configure
from ..protocol.bundle import GENERATE, SCORE
from ..protocol.errors import Code, StoreError
from ..protocol.work import Parameters
from .power import SAMPLINGS, Asked, Refutes, Report, measure
from .publishing import sign_at, trust_on_this_machine
from .recipe import Progress

SUBJECTS = (
    *("the moon", "sourdough bread", "prime numbers", "the Roman Empire", "photosynthesis", "chess openings"),
    *("electric cars", "the water cycle", "jazz", "black holes", "knitting", "the French Revolution", "volcanoes"),
    *("bicycle gears", "the stock market", "bees", "glass", "tides", "vaccines", "compasses", "typography", "opera"),
)
QUESTIONS = (
    *("Explain {} to a child.", "Write a short poem about {}.", "What do most people get wrong about {}?"),
    *("List three facts about {}.", "How would you begin a lecture on {}?", "Describe {} in two sentences."),
)


def calibrated(
    home: Path, name: str, prompts: int, tokens: int, *, refutes: Refutes, anew: bool, on_progress: Progress
) -> Report:
    """The bundle's report. Raises `StoreError`: `bundle_not_built`, and `unsupported_model` for one that writes no text."""
    store = BundleStore(home / "store")
    bundle = store.find(name)
    if bundle is None:
        raise StoreError(Code.BUNDLE_NOT_BUILT, f"{name} is not on this machine: build or fetch it first.")
    if not {GENERATE, SCORE} <= set(bundle.manifest.entries):
        message = (
            f"{name} writes no text; the tolerance of a function is measured when it is built (`fallow.models.bundle`)."
        )
        raise StoreError(Code.UNSUPPORTED_MODEL, message)
    configure(store.compile_cache)
    return measure(bundle, _asked(bundle, prompts, tokens), store, refutes, anew, on_progress, _device())


def republished(home: Path, report: Report) -> str:
    """The bundle is installed with the tolerance that was measured, signed and trusted by this machine; returns its CID."""
    store, bundle = BundleStore(home / "store"), report.bundle
    files = {name: bundle.path / name for name in bundle.manifest.files()}
    manifest = replace(bundle.manifest, tolerance=report.measured())
    made = store.install(manifest, lambda one: sign_at(home, one), files)
    trust_on_this_machine(home, made)
    return made.cid


def _asked(bundle: Bundle, count: int, tokens: int) -> list[Asked]:
    """Prompts of that many, each sampled in one of the ways; with more than there are, the seeds differ."""
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    template = ImmutableSandboxedEnvironment().from_string(
        bundle.manifest.chat_template or "{{ messages[0]['content'] }}"
    )
    asked = []
    for index in range(count):
        # Neighbours differ in both: the output of another prompt is one of another question.
        question, subject = QUESTIONS[index % len(QUESTIONS)], SUBJECTS[index % len(SUBJECTS)]
        chat = [{"role": "user", "content": question.format(subject)}]
        text = template.render(messages=chat, add_generation_prompt=True)
        milli, top_p = SAMPLINGS[index % len(SAMPLINGS)]
        prompt = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        room = bundle.manifest.context_tokens_max - len(prompt)
        asked.append(Asked(prompt, Parameters(min(tokens, room), milli, top_p, seed=index * 2**33 + index)))
    return asked


def _device() -> str:
    return f"{jax.devices()[0].device_kind} ({platform.machine()}), jax {jax.__version__}"
