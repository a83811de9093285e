"""A Llama model out of a GGUF file: float32 weights in Hugging Face's row order, and the tokenizer's parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from numpy.typing import NDArray

from .blocks import PackedBlocks
from .checkpoint import unsupported
from .llama import Llama

_SPECIAL_TOKEN: Final = 3
"""llama.cpp's LLAMA_TOKEN_TYPE_CONTROL."""

_LAYER: Final = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "o": ("attn_output",),
    "mlp_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}
"""The tensors whose rows lie under one another in our parameter."""


_QUANTISED: Final = {
    GGMLQuantizationType.Q4_1: np.dtype([("scale", "<f2"), ("least", "<f2"), ("codes", "u1", 16)]),
    GGMLQuantizationType.Q8_0: np.dtype([("scale", "<f2"), ("codes", "u1", 32)]),
}
"""A block of 32 weights, as llama.cpp's `block_q4_1` and `block_q8_0` lie in a file."""


class GgufLlama:
    """What one file of architecture `llama` says. Raises `StoreError(unsupported_model)` for any other."""

    def __init__(self, path: Path, context: int | None = None) -> None:
        """With so many positions; None: as many as the file says, which may be more than anybody needs."""
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise unsupported(f"{path.name} is not a GGUF file ({error})") from None
        if (architecture := self.text("general.architecture")) != "llama":
            raise unsupported(f"{path.name} is a {architecture!r} model, not a Llama")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        heads, dim = self._number("llama.attention.head_count"), self._number("llama.embedding_length")
        head_dim = self._number("llama.rope.dimension_count", dim // heads)
        self.positions = self._number("llama.context_length", 0)
        self.sizes = Llama(
            layers=self._number("llama.block_count"),
            dim=dim,
            heads=heads,
            kv_heads=self._number("llama.attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden=self._number("llama.feed_forward_length"),
            vocabulary=len(self.texts("tokenizer.ggml.tokens")),
            context=context or self.positions,
            rope_base=self._float("llama.rope.freq_base", 10_000.0),
            norm_epsilon=self._float("llama.attention.layer_norm_rms_epsilon"),
            tied="output.weight" not in self._tensors,
        )
        self._refuse_what_is_not_computed()

    def weights(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Each parameter of `sizes.parameters()`, in order, expanded to float32."""
        for name, shape in self.sizes.parameters().items():
            parts = [self._expanded(part) for part in _gguf_names(name)]
            yield name, (np.concatenate(parts) if len(parts) > 1 else parts[0]).reshape(shape)

    def in_blocks(self) -> Iterator[tuple[str, PackedBlocks]]:
        """Each matrix of `sizes.parameters()` as it is in the file: what its blocks expand to is what `weights` yields.

        Raises `StoreError(unsupported_model)` for one that is neither Q4_1 nor Q8_0.
        """
        for name, shape in self.sizes.parameters().items():
            if len(shape) == 2:
                parts = [self._blocks(part) for part in _gguf_names(name)]
                yield name, PackedBlocks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def vocabulary(self) -> dict[str, int]:
        """Each token's text, in the letters of byte-level BPE, to its number."""
        return {text: index for index, text in enumerate(self.texts("tokenizer.ggml.tokens"))}

    def merges(self) -> list[tuple[str, str]]:
        """BPE's merges, first ones first."""
        # An empty list is left out of a file.
        texts = self.texts("tokenizer.ggml.merges") if self._content("tokenizer.ggml.merges") is not None else []
        pairs = (text.split(" ") for text in texts)
        return [(left, right) for left, right in pairs]

    def special_tokens(self) -> list[tuple[int, str]]:
        """Tokens that no text can spell, such as the ends of turns."""
        kinds = self._content("tokenizer.ggml.token_type")
        if not isinstance(kinds, list):
            raise unsupported("The GGUF file does not say which of its tokens are special")
        texts = self.texts("tokenizer.ggml.tokens")
        return [(index, texts[index]) for index, kind in enumerate(kinds) if kind == _SPECIAL_TOKEN]

    def text(self, key: str, otherwise: str | None = None) -> str:
        """The text under `key`; `otherwise` if there is none."""
        content = self._content(key)
        if content is None and otherwise is not None:
            return otherwise
        if not isinstance(content, str):
            raise unsupported(f"The GGUF file has no text {key}")
        return content

    def number(self, key: str) -> int | None:
        """The whole number under `key`, if there is one."""
        content = self._content(key)
        return content if isinstance(content, int) else None

    def texts(self, key: str) -> list[str]:
        """The list of texts under `key`."""
        content = self._content(key)
        if not isinstance(content, list):
            raise unsupported(f"The GGUF file has no list {key}")
        return content

    def _expanded(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        array: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return _halves(array, self.sizes.head_dim) if _turned(name) else array

    def _blocks(self, name: str) -> PackedBlocks:
        tensor = self._tensors[name]
        if tensor.tensor_type not in _QUANTISED:
            raise unsupported(f"{name} is {tensor.tensor_type.name}: not in blocks of 4 or 8 bits")
        packed = packed_rows(tensor.data, tensor.tensor_type)
        return PackedBlocks(*(_halves(array, self.sizes.head_dim) for array in packed)) if _turned(name) else packed

    def _refuse_what_is_not_computed(self) -> None:
        sizes = self.sizes
        used = {part for name in sizes.parameters() for part in _gguf_names(name)}
        strange = sorted(set(self._tensors) - used)
        there = {
            "rope scaling": self._content("llama.rope.scaling.type") not in (None, "none")
            or "rope_freqs.weight" in self._tensors,
            "a sliding window": self._content("llama.attention.sliding_window"),
            "experts": self._content("llama.expert_count"),
            "heads of which a part is not turned": self._number("llama.attention.key_length", sizes.head_dim)
            != sizes.head_dim,
            f"tensors that no Llama here has, such as {strange[0] if strange else ''}": strange,
        }
        if found := [what for what, is_there in there.items() if is_there]:
            raise unsupported(f"The model has {found[0]}, which its family here does not compute")
        if missing := sorted(used - set(self._tensors)):
            raise unsupported(f"The GGUF file has no tensor {missing[0]}")

    def _number(self, key: str, otherwise: int | None = None) -> int:
        content = self._content(key)
        if content is None and otherwise is not None:
            return otherwise
        if not isinstance(content, int):
            raise unsupported(f"The GGUF file has no whole number {key}")
        return content

    def _float(self, key: str, otherwise: float | None = None) -> float:
        content = self._content(key)
        if content is None and otherwise is not None:
            return otherwise
        if not isinstance(content, int | float):
            raise unsupported(f"The GGUF file has no number {key}")
        return float(content)

    def _content(self, key: str) -> object:
        """None if there is no such key."""
        field = self._reader.get_field(key)
        return field.contents() if field is not None else None


def packed_rows(rows: NDArray[np.uint8], kind: GGMLQuantizationType) -> PackedBlocks:
    """A tensor's rows as they are in the file, Q4_1 or Q8_0, as blocks of the same weights."""
    blocks = np.ascontiguousarray(rows).view(_QUANTISED[kind])
    codes, scale = blocks["codes"].reshape(len(rows), -1), blocks["scale"].astype(np.float32)
    if kind == GGMLQuantizationType.Q4_1:
        return PackedBlocks(codes, np.stack([scale, blocks["least"].astype(np.float32)], -1))
    # Signed codes times scale. Codes that begin at 0 are 128 more, and the least weight is -128 times the scale.
    return PackedBlocks(codes ^ np.uint8(128), np.stack([scale, -128 * scale], -1))


def _gguf_names(name: str) -> list[str]:
    layer, _, part = name.rpartition(".")
    if layer:
        return [f"blk.{layer}.{each}.weight" for each in _LAYER[part]]
    return [{"embed": "token_embd.weight", "norm": "output_norm.weight", "output": "output.weight"}[part]]


def _turned(name: str) -> bool:
    """Whether a tensor's rows come in rotary pairs."""
    return name.endswith(("attn_q.weight", "attn_k.weight"))


def _halves(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Rows of q or k with rotary pairs at (i, i + HD / 2), as `llama.py` turns them; a GGUF has pairs side by side."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))
