"""A model from this machine's own disk as a bundle: a GGUF file, or a folder as Hugging Face's libraries write it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ..node.engine.bundles import Bundle, BundleStore
from ..protocol.bundle import CALL, GENERATE, SCORE, Tolerance
from ..protocol.limits import STOP_STRINGS_MAX
from .builder import install
from .checkpoint import Checkpoint, read_json, unsupported
from .gguf_reader import GgufLlama
from .huggingface import (
    bert_sizes,
    bert_weights,
    chat_template_of,
    end_tokens_of,
    licence_of,
    llama_sizes,
    llama_weights,
    tokenizer_of,
)  # fmt: skip
from .llama import Llama
from .recipe import Model, Progress
from .spread import spread
from .tokenizer_json import byte_level, special
from .weights import Weights

_SLOTS: Final = (1, 4, 8, 16)
_TEXT_SLOTS: Final = (1, 8)
_LENGTHS: Final = (32, 128)
_SHORT_CONTEXT: Final = 256
_CONTEXT: Final = 1024
"""Unless another is asked for: a longer cache costs memory in every slot, whoever sits in it."""
_PRETOKENIZERS: Final = {"gpt-2": False, "smollm": True}
"""llama.cpp's names of what we have a rule for; whether each digit is a word of its own."""
_SPDX: Final = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0"}
"""Model cards write in lower case; what is not here is taken as it stands."""
_TEXT_TOLERANCE: Final = Tolerance(1000, 1000, 1000, 0, 0, (), "Not measured: SmolLM2's, of the same family.")
_VECTOR_TOLERANCE: Final = Tolerance(1, 0, 0, 0, 0, (), "Not measured: MiniLM's, of the same family.")


def build_from(
    path: Path,
    store: BundleStore,
    *,
    name: str = "",
    licence: str = "",
    provenance: str = "",
    context: int | None = None,
    devices: int = 1,
    on_progress: Progress | None = None,
) -> Bundle:
    """The model in a file or folder is a bundle on this machine, signed by its publisher key and trusted here.

    A Llama may lie over several `devices`, for machines with as many accelerators.

    Raises `StoreError(unsupported_model)` as `read` does, `EngineError(worker_failed)` if it does not run on this machine, and
    `OSError` (the disk is full).
    """
    progress = on_progress or (lambda _stage, _fraction: None)
    model = read(path, licence, provenance, context, progress, devices)
    return install(name or name_of(path), model, store, progress)


def read(path: Path, licence: str, provenance: str, context: int | None, progress: Progress, devices: int = 1) -> Model:
    """The model, its weights widened to float32 in memory. What is not said here the file has to say: the licence above all.

    Raises `StoreError(unsupported_model)`, in one sentence, for what has no family here, is incomplete, or would have to be
    run to be read.
    """
    progress("read", 0.0)
    files: Sequence[Path] = (path,)
    if path.is_file() and path.suffix == ".gguf":
        model = _gguf(path, context, devices)
    elif path.is_dir():
        model, files = _folder(path, context, devices)
    elif path.exists():
        raise unsupported(f"{path.name} is neither a GGUF file nor a folder with config.json; pickles are never read")
    else:
        raise unsupported(f"{path} is not there")
    licence = licence or _SPDX.get(model.licence, model.licence)
    if not licence or licence == "other":
        raise unsupported(f"{path.name} does not say its licence: say it as an SPDX expression (`--licence`)")
    return replace(model, licence=licence, provenance=provenance or _provenance(path, files))


def name_of(path: Path) -> str:
    """What a bundle is called that is given no name."""
    stem = path.stem if path.suffix == ".gguf" else path.resolve().name
    return re.sub(r"[^a-z0-9.]+", "-", stem.lower()).strip("-.")[:64] or "model"


def _gguf(path: Path, context: int | None, devices: int) -> Model:
    source = GgufLlama(path)
    sizes = replace(source.sizes, context=_context(context, source.positions))
    return _llama(
        *spread(sizes, dict(source.weights()), devices),
        licence=source.text("general.license", ""),
        tokenizer=_gguf_tokenizer(source),
        chat_template=source.text("tokenizer.chat_template", "") or None,
        ends=[end for key in ("eos", "eot") if (end := source.number(f"tokenizer.ggml.{key}_token_id")) is not None],
    )


def _folder(path: Path, context: int | None, devices: int) -> tuple[Model, Sequence[Path]]:
    config = read_json(path / "config.json")
    match config.get("model_type"):
        case None:
            raise unsupported(f"{path.name} has no config.json that says model_type")
        case "llama":
            sizes = llama_sizes(config, _context(context, int(config.get("max_position_embeddings") or 0)))
            checkpoint = Checkpoint(path)
            model = _llama(
                *spread(sizes, dict(llama_weights(sizes, checkpoint)), devices),
                licence=licence_of(path),
                tokenizer=tokenizer_of(path),
                chat_template=chat_template_of(path),
                ends=end_tokens_of(path, config),
            )
        case "bert" if devices == 1:
            model, checkpoint = _bert(path, context)
        case other:
            which = "families for llama and bert" if devices == 1 else "only llama over several devices"
            raise unsupported(f"{path.name} is a {other!r} model: there are {which}")
    return model, checkpoint.files


def _llama(
    sizes: Llama, weights: Weights, *, licence: str, tokenizer: bytes, chat_template: str | None, ends: Sequence[int]
) -> Model:
    lengths = [length for length in _LENGTHS if sizes.context % length == 0]
    short = sizes.context > _SHORT_CONTEXT and sizes.context % _SHORT_CONTEXT == 0
    contexts = (_SHORT_CONTEXT, sizes.context) if short else (sizes.context,)
    return Model(
        family="llama",
        licence=licence,
        provenance="",
        entries=(GENERATE, SCORE),
        parameters=sizes.parameters(),
        weights=weights,
        state=sizes.state(),
        inputs=(),
        outputs=(),
        programs=sizes.programs(lengths, _SLOTS, contexts),
        tokenizer=tokenizer,
        chat_template=chat_template,
        context=sizes.context,
        end_tokens=tuple(dict.fromkeys(ends))[:STOP_STRINGS_MAX],
        tolerance=_TEXT_TOLERANCE,
        layout=sizes.layout(),
    )


def _bert(path: Path, context: int | None) -> tuple[Model, Checkpoint]:
    pooling = read_json(path / "1_Pooling" / "config.json")
    if not pooling.get("pooling_mode_mean_tokens", True):
        raise unsupported(f"{path.name} does not take the mean of its tokens, which the family here does")
    sizes, checkpoint = bert_sizes(read_json(path / "config.json")), Checkpoint(path)
    longest = min(context or _SHORT_CONTEXT, sizes.positions)
    if context and context > sizes.positions:
        raise unsupported(f"The model has {sizes.positions} positions, not {context}")
    lengths = [*(length for length in _LENGTHS if length < longest), longest]
    model = Model(
        family="bert",
        licence=licence_of(path),
        provenance="",
        entries=(CALL,),
        parameters=sizes.parameters(),
        weights=dict(bert_weights(sizes, checkpoint)),
        state=(),
        inputs=(),
        outputs=sizes.outputs(),
        programs=sizes.programs(lengths, _TEXT_SLOTS),
        tokenizer=tokenizer_of(path),
        chat_template=None,
        context=longest,
        end_tokens=(),
        tolerance=_VECTOR_TOLERANCE,
    )
    return model, checkpoint


def _context(asked: int | None, positions: int) -> int:
    """Positions of the longest cache: chunks have to divide it."""
    if asked is None:
        asked = min(positions or _CONTEXT, _CONTEXT)
        asked -= asked % _LENGTHS[0]
    if asked < _LENGTHS[0] or asked % _LENGTHS[0]:
        raise unsupported(f"A context of {asked} positions is not a multiple of {_LENGTHS[0]}")
    if positions and asked > positions:
        raise unsupported(f"The model was trained on {positions} positions, not {asked}")
    return asked


def _gguf_tokenizer(source: GgufLlama) -> bytes:
    kind, rule = source.text("tokenizer.ggml.model"), source.text("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or rule not in _PRETOKENIZERS:
        known = ", ".join(_PRETOKENIZERS)
        raise unsupported(f"The tokenizer is {kind}/{rule}: of a GGUF's, byte-level BPE is known ({known})")
    if source.number("tokenizer.ggml.add_bos_token"):
        raise unsupported("The tokenizer begins each text with a token of its own, which is not known how to write")
    specials = [special(index, text) for index, text in source.special_tokens()]
    split = _PRETOKENIZERS[rule]
    tokenizer = byte_level(source.vocabulary(), source.merges(), specials, split_digits=split)
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()


def _provenance(path: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(2**20):
                digest.update(piece)
    return f"{path.resolve().name[:200]}; SHA-256 of its weights, file after file: {digest.hexdigest()}"
