"""The same Llama in PyTorch float32, over the same weights file: `torch_llama.py WEIGHTS SIZES PROMPT TOKENS STREAMS`.

Runs in an environment that has torch and numpy and no fallow. For each line on standard input, one line of JSON: tokens per
second of one stream, of all streams together, and of reading the prompt; and what one stream wrote.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

Weights = dict[str, Any]


class Llama:
    """The model, and caches for a number of sequences of one length. Matrices are fused as in the bundle."""

    def __init__(self, weights: Weights, sizes: dict[str, Any], streams: int, context: int) -> None:
        self._weights, self._sizes = weights, sizes
        shape = streams, sizes["kv_heads"], context, sizes["head_dim"]
        self._caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(sizes["layers"])]
        half = torch.arange(0, sizes["head_dim"], 2) / sizes["head_dim"]
        angles = torch.outer(torch.arange(context), sizes["rope_base"] ** -half)
        self._cosine, self._sine = angles.cos(), angles.sin()

    def following(self, tokens: Any, start: int) -> Any:
        """The likeliest token after each sequence, whose `tokens` [B, C] stand at `start` and after."""
        w, heads, kv_heads = self._weights, self._sizes["heads"], self._sizes["kv_heads"]
        end = start + tokens.shape[1]
        x = embedding(tokens, w["embed"])
        for layer, (keys, values) in enumerate(self._caches):
            joined = linear(self._norm(x, w[f"{layer}.attention_norm"]), w[f"{layer}.qkv"])
            rows = joined.unflatten(-1, (-1, self._sizes["head_dim"])).transpose(1, 2)
            q, k, v = rows.split((heads, kv_heads, kv_heads), dim=1)
            keys[:, :, start:end], values[:, :, start:end] = self._turned(k, start, end), v
            over = self._turned(q, start, end), keys[:, :, :end], values[:, :, :end]
            mixed = scaled_dot_product_attention(*over, is_causal=start == 0, enable_gqa=True)
            x = x + linear(mixed.transpose(1, 2).flatten(2), w[f"{layer}.o"])
            gate, up = linear(self._norm(x, w[f"{layer}.mlp_norm"]), w[f"{layer}.gate_up"]).chunk(2, dim=-1)
            x = x + linear(silu(gate) * up, w[f"{layer}.down"])
        logits = linear(self._norm(x[:, -1], w["norm"]), w["embed" if self._sizes["tied"] else "output"])
        return logits.argmax(-1, keepdim=True)

    def _norm(self, x: Any, weight: Any) -> Any:
        return rms_norm(x, weight.shape, weight, self._sizes["norm_epsilon"])

    def _turned(self, x: Any, start: int, end: int) -> Any:
        a, b = x.chunk(2, dim=-1)
        cosine, sine = self._cosine[start:end], self._sine[start:end]
        return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


def mapped(path: Path) -> Weights:
    """The file's tensors, where they lie in it."""
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    return {
        name: torch.from_numpy(
            np.frombuffer(content, np.float32, int(np.prod(each["shape"])), begin + each["data_offsets"][0])
        ).reshape(each["shape"])
        for name, each in header.items()
    }


def write(model: Llama, prompt: list[int], streams: int, tokens: int) -> tuple[float, float, list[int]]:
    """Seconds for the prompts, seconds for the tokens after the first, and what the first stream has written."""
    began = time.perf_counter()
    last = model.following(torch.tensor([prompt] * streams), 0)
    written, read_s = [int(last[0])], time.perf_counter() - began
    for position in range(len(prompt), len(prompt) + tokens - 1):
        last = model.following(last, position)
        written.append(int(last[0]))
    return read_s, time.perf_counter() - began - read_s, written


def main() -> None:
    weights, sizes = mapped(Path(sys.argv[1])), json.loads(sys.argv[2])
    prompt, tokens, streams = json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    torch.set_num_threads(os.cpu_count() or 1)
    context = len(prompt) + tokens
    one, many = (Llama(weights, sizes, count, context) for count in (1, streams))
    with torch.inference_mode():
        print("ready", flush=True)
        for _ in sys.stdin:
            read_s, one_s, written = write(one, prompt, 1, tokens)
            _, many_s, _ = write(many, prompt, streams, tokens)
            steps = tokens - 1
            print(json.dumps([steps / one_s, steps * streams / many_s, len(prompt) / read_s, written]), flush=True)


if __name__ == "__main__":
    main()
