"""Llama and BERT models as Hugging Face's folders hold them: `config.json`, safetensors, `tokenizer.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .bert import Bert
from .checkpoint import Checkpoint, read_json, unsupported
from .llama import Llama

_LLAMA: Final = {
    "attention_norm": ("input_layernorm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "mlp_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The tensors whose rows lie under one another in our parameter. Rotary pairs of q and k are (i, i + HD / 2), as ours are."""

_BERT: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}

_LLAMA_UNUSED: Final = re.compile(r"lm_head\.weight|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
_BERT_UNUSED: Final = re.compile(r"(bert\.)?(pooler\.|embeddings\.position_ids$)|cls\.")
"""Tensors that a checkpoint may hold and that its model, used as we do, does not need."""


def llama_sizes(config: Mapping[str, Any], context: int) -> Llama:
    """The sizes in a `config.json`. Raises `StoreError(unsupported_model)` for a model that computes anything else."""
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    _refuse(
        ("rope scaling", scaling.get("rope_type", scaling.get("type", "default")) != "default"),
        ("biases", config.get("attention_bias") or config.get("mlp_bias")),
        ("a sliding window", config.get("sliding_window")),
        ("a part of each head that is not turned", config.get("partial_rotary_factor", 1) != 1),
        ("quantised weights", config.get("quantization_config")),
        (f"the activation {config.get('hidden_act')!r}", config.get("hidden_act", "silu") != "silu"),
    )
    heads = _number(config, "num_attention_heads")
    dim = _number(config, "hidden_size")
    return Llama(
        layers=_number(config, "num_hidden_layers"),
        dim=dim,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or dim // heads),
        hidden=_number(config, "intermediate_size"),
        vocabulary=_number(config, "vocab_size"),
        context=context,
        rope_base=float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def llama_weights(sizes: Llama, checkpoint: Checkpoint) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each parameter in order, float32. Raises `StoreError(unsupported_model)` for tensors that no Llama has, or lacks."""
    names = {name: tuple(_llama_names(name)) for name in sizes.parameters()}
    _check_all_used(checkpoint, (each for parts in names.values() for each in parts), _LLAMA_UNUSED, "Llama")
    for name, shape in sizes.parameters().items():
        parts = [checkpoint.read(each) for each in names[name]]
        yield name, _shaped(name, np.concatenate(parts) if len(parts) > 1 else parts[0], shape)


def bert_sizes(config: Mapping[str, Any]) -> Bert:
    """The sizes in a `config.json`. Raises `StoreError(unsupported_model)` for a model that computes anything else."""
    positions = config.get("position_embedding_type", "absolute")
    _refuse(
        (f"the activation {config.get('hidden_act')!r}", config.get("hidden_act", "gelu") != "gelu"),
        (f"{positions!r} positions", positions != "absolute"),
        ("quantised weights", config.get("quantization_config")),
    )
    return Bert(
        layers=_number(config, "num_hidden_layers"),
        dim=_number(config, "hidden_size"),
        heads=_number(config, "num_attention_heads"),
        hidden=_number(config, "intermediate_size"),
        vocabulary=_number(config, "vocab_size"),
        positions=_number(config, "max_position_embeddings"),
        norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def bert_weights(sizes: Bert, checkpoint: Checkpoint) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each parameter in order, float32. A sentence encoder has one segment: type 0 of every position."""
    before = "bert." if any(name.startswith("bert.") for name in checkpoint.names) else ""
    names = {name: before + bert_name(name) for name in sizes.parameters()}
    _check_all_used(checkpoint, names.values(), _BERT_UNUSED, "BERT")
    for name, shape in sizes.parameters().items():
        tensor = checkpoint.read(names[name])
        yield name, _shaped(name, np.ascontiguousarray(tensor[0]) if name == "segment" else tensor, shape)


def bert_name(name: str) -> str:
    """Hugging Face's tensor for our parameter."""
    if name in ("words", "positions"):
        return f"embeddings.{name.removesuffix('s')}_embeddings.weight"
    if name == "segment":
        return "embeddings.token_type_embeddings.weight"
    first, *rest = name.split(".")
    if first == "norm":
        return f"embeddings.LayerNorm.{rest[0]}"
    return f"encoder.layer.{first}.{_BERT[rest[0]]}.{rest[1]}"


def bare_tokenizer(original: bytes) -> bytes:
    """A `tokenizer.json` without its padding and truncation: whoever asks decides, and the program pads."""
    tokenizer = json.loads(original) | {"padding": None, "truncation": None}
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()


def tokenizer_of(folder: Path) -> bytes:
    """The folder's tokenizer. Raises `StoreError(unsupported_model)` if it has none."""
    if not (content := read_json(folder / "tokenizer.json")):
        raise unsupported(f"{folder.name} has no tokenizer.json: save the model's fast tokenizer beside it")
    return bare_tokenizer(json.dumps(content).encode())


def chat_template_of(folder: Path) -> str | None:
    """The folder's chat template, from either of the places where there may be one."""
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text("utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {each["name"]: each["template"] for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def end_tokens_of(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens at which generation ends, by the folder's own word."""
    found = read_json(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    ends = found if isinstance(found, list) else [] if found is None else [found]
    return tuple(dict.fromkeys(int(each) for each in ends))


def licence_of(folder: Path) -> str:
    """What the model card says, as it says it; empty if it says nothing."""
    card = folder / "README.md"
    head = card.read_text("utf-8", "replace")[: 64 * 1024] if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", head, re.DOTALL)
    named = re.search(r"^license:\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return named[1] if named else ""


def _llama_names(name: str) -> Iterable[str]:
    layer, _, part = name.rpartition(".")
    if layer:
        return (f"model.layers.{layer}.{each}.weight" for each in _LLAMA[part])
    return ({"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "output": "lm_head.weight"}[part],)


def _refuse(*faults: tuple[str, object]) -> None:
    if found := [what for what, is_there in faults if is_there]:
        raise unsupported(f"The model has {', '.join(found)}, which its family here does not compute")


def _check_all_used(checkpoint: Checkpoint, used: Iterable[str], unused: re.Pattern[str], family: str) -> None:
    strange = sorted(name for name in checkpoint.names - set(used) if not unused.match(name))
    if strange:
        raise unsupported(f"The model has tensors that no {family} here has, such as {strange[0]}")


def _shaped(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if array.shape != shape:
        raise unsupported(f"Parameter {name} is of shape {list(array.shape)}, where config.json means {list(shape)}")
    return array


def _number(config: Mapping[str, Any], key: str) -> int:
    if not isinstance(value := config.get(key), int) or value < 1:
        raise unsupported(f"config.json does not say {key}")
    return value
