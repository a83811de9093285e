"""A Llama model out of a GGUF file: float32 weights in Hugging Face's row order, and the tokenizer's parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from numpy.typing import NDArray

from .blocks import PackedBlocks
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
    """What one file of architecture `llama` says. Raises `ValueError` or `KeyError` for any other."""

    def __init__(self, path: Path, context: int) -> None:
        self._reader = GGUFReader(path)
        if (architecture := self.text("general.architecture")) != "llama":
            raise ValueError(f"{path.name} is a {architecture!r} model, not a Llama")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        heads, head_dim = self._number("llama.attention.head_count"), self._number("llama.rope.dimension_count")
        self.sizes = Llama(
            layers=self._number("llama.block_count"),
            dim=self._number("llama.embedding_length"),
            heads=heads,
            kv_heads=self._number("llama.attention.head_count_kv"),
            head_dim=head_dim,
            hidden=self._number("llama.feed_forward_length"),
            vocabulary=self._number("llama.vocab_size"),
            context=context,
            rope_base=float(self._content("llama.rope.freq_base")),  # type: ignore[arg-type]  # checked by float()
            norm_epsilon=float(self._content("llama.attention.layer_norm_rms_epsilon")),  # type: ignore[arg-type]
            tied="output.weight" not in self._tensors,
        )

    def weights(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Each parameter of `sizes.parameters()`, in order, expanded to float32."""
        for name, shape in self.sizes.parameters().items():
            parts = [self._expanded(part) for part in _gguf_names(name)]
            yield name, (np.concatenate(parts) if len(parts) > 1 else parts[0]).reshape(shape)

    def in_blocks(self) -> Iterator[tuple[str, PackedBlocks]]:
        """Each matrix of `sizes.parameters()` as it is in the file: what its blocks expand to is what `weights` yields.

        Raises `ValueError` for one that is neither Q4_1 nor Q8_0.
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
        pairs = (text.split(" ") for text in self.texts("tokenizer.ggml.merges"))
        return [(left, right) for left, right in pairs]

    def special_tokens(self) -> list[tuple[int, str]]:
        """Tokens that no text can spell, such as the ends of turns."""
        kinds = self._content("tokenizer.ggml.token_type")
        assert isinstance(kinds, list)
        texts = self.texts("tokenizer.ggml.tokens")
        return [(index, texts[index]) for index, kind in enumerate(kinds) if kind == _SPECIAL_TOKEN]

    def text(self, key: str) -> str:
        """The text under `key`."""
        content = self._content(key)
        if not isinstance(content, str):
            raise ValueError(f"{key} is not a text")
        return content

    def texts(self, key: str) -> list[str]:
        """The list of texts under `key`."""
        content = self._content(key)
        if not isinstance(content, list):
            raise ValueError(f"{key} is not a list")
        return content

    def _expanded(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        array: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return _halves(array, self.sizes.head_dim) if _turned(name) else array

    def _blocks(self, name: str) -> PackedBlocks:
        tensor = self._tensors[name]
        if tensor.tensor_type not in _QUANTISED:
            raise ValueError(f"{name} is {tensor.tensor_type.name}: not in blocks of 4 or 8 bits")
        packed = packed_rows(tensor.data, tensor.tensor_type)
        return PackedBlocks(*(_halves(array, self.sizes.head_dim) for array in packed)) if _turned(name) else packed

    def _number(self, key: str) -> int:
        content = self._content(key)
        if not isinstance(content, int):
            raise ValueError(f"{key} is not a whole number")
        return content

    def _content(self, key: str) -> object:
        field = self._reader.get_field(key)
        if field is None:
            raise KeyError(key)
        return field.contents()


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
