"""PP-OCR's text direction classifier (PaddlePaddle Authors, Apache-2.0), out of the `rapidocr` wheel: is a line upside down?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..protocol.bundle import CALL, Cheat, Tolerance
from .mobilenet import Block, MobileNet
from .onnx_reader import onnx_tensors
from .recipe import Model, Progress
from .weights import Weights
from .wheels import Wheel, read_from_wheel

_WHEEL: Final = Wheel("rapidocr", "3.10.0", "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050")
_ONNX: Final = "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"
_SLOTS: Final = (1, 8)
_NORM_EPSILON: Final = 1e-5

_NETWORK: Final = MobileNet(
    height=48,
    width=192,
    stem=8,
    blocks=(
        Block(3, 8, 8, gated=True, hard_swish=False, stride=(2, 1)),
        Block(3, 24, 8, gated=False, hard_swish=False, stride=(2, 1)),
        Block(3, 32, 8, gated=False, hard_swish=False),
        Block(5, 32, 16, gated=True, hard_swish=True, stride=(2, 1)),
        Block(5, 88, 16, gated=True, hard_swish=True),
        Block(5, 88, 16, gated=True, hard_swish=True),
        Block(5, 40, 16, gated=True, hard_swish=True),
        Block(5, 48, 16, gated=True, hard_swish=True),
        Block(5, 104, 32, gated=True, hard_swish=True, stride=(2, 1)),
        Block(5, 200, 32, gated=True, hard_swish=True),
        Block(5, 200, 32, gated=True, hard_swish=True),
    ),
    last=200,
    classes=2,
)
"""MobileNetV3-small at 0.35 of its channels, with strides that keep a line's width."""

_TOLERANCE: Final = Tolerance(
    value_micro=100,
    gap_micro=0,
    mass_ppm=0,
    samples=20,
    false_reject_ppm=0,
    cheats=(Cheat("bfloat16-weights", 10, 0), Cheat("int8-weights", 10, 0)),
    calibrated_by=(
        "python -m fallow.models.calibrate text-direction --inputs tests/fixtures/references/text_direction.npz: ten"
        " lines of text on one x86 CPU. Honest at most 4.2 ppm; the rest is room for other devices, unmeasured. Least"
        " with bfloat16 weights 5540 ppm, int8 1490. Images of mere noise tell less: 44 and 33 ppm."
    ),
)

_LAYERS: Final = {
    "expand": "expand",
    "depthwise": "depthwise",
    "project": "linear",
    "squeeze": "se_1",
    "excite": "se_2",
}


def text_direction(downloads: Path, progress: Progress) -> Model:
    """Classes are 0 and 180 degrees. Raises `StoreError(download_failed)`."""
    progress("download", 0.0)
    wheel = _WHEEL.fetch(downloads)
    progress("expand", 0.0)
    return Model(
        family="mobilenet",
        licence="Apache-2.0",
        provenance=(
            f"{_ONNX} of the wheel {_WHEEL.file_name}, SHA-256 {_WHEEL.sha256}; converted from PaddleOCR's"
            " ch_ppocr_mobile_v2.0_cls, whose licence the wheel's MODEL_LICENSES.md records. Norms folded into weights."
        ),
        entries=(CALL,),
        parameters=_NETWORK.parameters(),
        weights=_weights(onnx_tensors(read_from_wheel(wheel, _ONNX))),
        state=(),
        inputs=_NETWORK.inputs(),
        outputs=_NETWORK.outputs(),
        programs=_NETWORK.programs(_SLOTS),
        tokenizer=None,
        chat_template=None,
        context=1,
        end_tokens=(),
        tolerance=_TOLERANCE,
    )


def _weights(tensors: dict[str, NDArray[Any]]) -> Weights:
    weights = {"classes.weight": np.ascontiguousarray(tensors["fc_0.w_0"].T), "classes.bias": tensors["fc_0.b_0"]}
    for name in _NETWORK.parameters():
        layer, _, part = name.rpartition(".")
        if part == "weight" and layer != "classes":
            weights[name], weights[f"{layer}.bias"] = _folded(tensors, _name_there(layer))
    return weights


def _name_there(layer: str) -> str:
    """PaddleOCR's name of a convolution: `conv1`, `conv2_expand` to `conv12_linear`, `conv_last`."""
    block, _, part = layer.partition(".")
    return f"conv{int(block) + 2}_{_LAYERS[part]}" if part else {"stem": "conv1", "last": "conv_last"}[layer]


def _folded(tensors: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A convolution's weight and bias, the norm after it (Ioffe and Szegedy 2015) taken in; a gate's have none."""
    weight = tensors[f"{name}_weights"]
    if f"{name}_offset" in tensors:
        return weight, tensors[f"{name}_offset"]
    scale, offset, mean, variance = (
        tensors[f"{name}_bn_{part}"].astype(np.float64) for part in ("scale", "offset", "mean", "variance")
    )
    factor = scale / np.sqrt(variance + _NORM_EPSILON)
    bias = offset - mean * factor
    return (weight * factor[:, None, None, None]).astype(np.float32), bias.astype(np.float32)
