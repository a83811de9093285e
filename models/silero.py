"""Silero VAD 6.2 (Silero Team, MIT), out of the `silero-vad` wheel: whether somebody speaks, 32 ms by 32 ms, at 16 kHz."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from ..protocol.bundle import CALL, Cheat, Tolerance
from .onnx_reader import onnx_tensors
from .recipe import Model, Progress
from .vad import Vad
from .wheels import Wheel, read_from_wheel

_WHEEL: Final = Wheel("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
_ONNX: Final = "silero_vad/data/silero_vad_16k_op15.onnx"
"""The wheel's safetensors file holds the weights of an earlier release, which differ."""
_CHUNKS: Final = 16
"""A step is half a second: short enough to speak with, long enough to be worth a message."""
_SLOTS: Final = (1, 8)

_NAMES: Final = {
    "spectrum": "model.stft.forward_basis_buffer",
    "cell.input.weight": "model.decoder.rnn.weight_ih",
    "cell.input.bias": "model.decoder.rnn.bias_ih",
    "cell.hidden.weight": "model.decoder.rnn.weight_hh",
    "cell.hidden.bias": "model.decoder.rnn.bias_hh",
    "output.weight": "model.decoder.decoder.2.weight",
    "output.bias": "model.decoder.decoder.2.bias",
}

_TOLERANCE: Final = Tolerance(
    value_micro=20,
    gap_micro=0,
    mass_ppm=0,
    samples=16,
    false_reject_ppm=0,
    cheats=(Cheat("bfloat16-weights", 8, 0), Cheat("int8-weights", 8, 0)),
    calibrated_by=(
        "python -m fallow.models.calibrate silero-vad --inputs tests/fixtures/references/silero.npz: four seconds of"
        " speech, music and silence on one x86 CPU. Honest at most 0.21 ppm; the rest is room for other devices,"
        " unmeasured. Least with bfloat16 weights 527 ppm, int8 5580; for 64 steps of noise 107 and 600."
    ),
)


def silero(downloads: Path, progress: Progress) -> Model:
    """Raises `StoreError(download_failed)`."""
    progress("download", 0.0)
    wheel = _WHEEL.fetch(downloads)
    progress("expand", 0.0)
    tensors = onnx_tensors(read_from_wheel(wheel, _ONNX))
    vad = Vad(_CHUNKS)
    parameters = vad.parameters()
    return Model(
        family="vad",
        licence="MIT",
        provenance=f"{_ONNX} of the wheel {_WHEEL.file_name}, SHA-256 {_WHEEL.sha256}.",
        entries=(CALL,),
        parameters=parameters,
        weights={name: np.ascontiguousarray(tensors[_name_there(name)]) for name in parameters},
        state=(),
        inputs=vad.inputs(),
        outputs=vad.outputs(),
        programs=vad.programs(_SLOTS),
        tokenizer=None,
        chat_template=None,
        context=1,
        end_tokens=(),
        tolerance=_TOLERANCE,
    )


def _name_there(name: str) -> str:
    layer, _, part = name.partition(".")
    return f"model.encoder.{layer}.reparam_conv.{part}" if layer.isdigit() else _NAMES[name]
