"""Two models small enough for tests: real programs and tokenizers, random weights. They know nothing, at length."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..protocol.bundle import CALL, GENERATE, SCORE, Tolerance
from .bert import Bert
from .blocks import in_blocks, packed
from .llama import Llama
from .program import Shapes
from .recipe import Model, Progress
from .spread import spread
from .tokenizer_json import BYTE_LETTERS, byte_level, special

_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_END: Final = 2
_VOCABULARY: Final = len(_SPECIAL) + 256
_CONTEXT: Final = 256
_LENGTHS: Final = (32,)
_SLOTS: Final = (1, 4)
_CONTEXTS: Final = (64, _CONTEXT)
_PROVENANCE: Final = "Random weights by a fixed seed, made by fallow.models.tiny."
_SEED: Final = 7


def tiny_chat(downloads: Path, progress: Progress, devices: int = 1) -> Model:
    """A Llama of two layers that answers with varied printable characters; the same over several devices."""
    llama = Llama(
        layers=2, dim=64, heads=4, kv_heads=2, head_dim=16, hidden=128, vocabulary=_VOCABULARY, context=_CONTEXT,
        rope_base=10_000.0, norm_epsilon=1e-5, tied=False,
    )  # fmt: skip
    weights = _random(llama.parameters())
    weights["output"] = 12 * weights["output"] * _printable()[:, None]
    llama, spread_weights = spread(llama, weights, devices)
    return Model(
        family="llama",
        licence="Apache-2.0",
        provenance=_PROVENANCE,
        entries=(GENERATE, SCORE),
        parameters=llama.parameters(),
        weights=spread_weights,
        state=llama.state(),
        inputs=(),
        outputs=(),
        programs=llama.programs(_LENGTHS, _SLOTS, _CONTEXTS),
        tokenizer=_tokenizer(),
        chat_template=_CHAT_TEMPLATE,
        context=_CONTEXT,
        end_tokens=(_END,),
        tolerance=Tolerance(1000, 1000, 1000, 0, 0, (), "Not measured: SmolLM2's, whose programs it shares."),
        layout=llama.layout(),
    )


def tiny_chat_in_blocks(downloads: Path, progress: Progress) -> Model:
    """`tiny_chat` with the nearest weights that blocks have: layers of 4 bits, embedding and output of 8."""
    model = tiny_chat(downloads, progress)
    matrices = {name: w for name, w in model.weights.items() if w.ndim == 2}
    return in_blocks(model, {name: packed(w, 4 if "." in name else 8) for name, w in matrices.items()})


def tiny_embed(downloads: Path, progress: Progress) -> Model:
    """A BERT of two layers."""
    bert = Bert(
        layers=2, dim=64, heads=4, hidden=128, vocabulary=_VOCABULARY, positions=_CONTEXT, norm_epsilon=1e-12
    )  # fmt: skip
    return Model(
        family="bert",
        licence="Apache-2.0",
        provenance=_PROVENANCE,
        entries=(CALL,),
        parameters=bert.parameters(),
        weights=_random(bert.parameters()),
        state=(),
        inputs=(),
        outputs=bert.outputs(),
        programs=bert.programs(_LENGTHS, _SLOTS),
        tokenizer=_tokenizer(),
        chat_template=None,
        context=_LENGTHS[-1],
        end_tokens=(),
        tolerance=Tolerance(1, 0, 0, 0, 0, (), "Not measured: MiniLM's, whose programs it shares."),
    )


def _random(shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    """Uniform weights of unit gain, norms of one, biases of zero. Uniform, since normal variates need a libm."""
    generator = np.random.Generator(np.random.PCG64(_SEED))

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if len(shape) == 1:
            return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
        scale = 1.0 if "." not in name else 3.0 / shape[-1]
        return ((generator.random(shape) * 2 - 1) * math.sqrt(3.0 * scale)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def _printable() -> NDArray[np.float32]:
    """Weight of each token in the output: printable ASCII is likely, everything else is not (so nothing ends early)."""
    likely = np.full(_VOCABULARY, 0.02, np.float32)
    likely[len(_SPECIAL) + ord(" ") : len(_SPECIAL) + ord("~") + 1] = 1
    return likely / np.float32(8)


def _tokenizer() -> bytes:
    vocabulary = {text: i for i, text in enumerate((*_SPECIAL, *(BYTE_LETTERS[byte] for byte in range(256))))}
    tokenizer = byte_level(vocabulary, [], [special(i, text) for i, text in enumerate(_SPECIAL)], split_digits=False)
    return json.dumps(tokenizer, ensure_ascii=False).encode()
