"""Voice activity by a short-time spectrum, four convolutions and an LSTM cell: Silero VAD's network (silero-team 2024), 16 kHz.

A stream goes on from one step to the next by what it is given back: the last samples that it heard, and the cell's state. So a
step is a function of its inputs alone: any node can take the next one, and each can be checked by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..protocol.bundle import Tensor
from .program import Draft, Shapes, State, f32

CHUNK: Final = 512
"""Samples for which there is one probability: 32 ms."""
CONTEXT: Final = 64
"""Samples before a chunk that it is heard with."""
_WINDOW: Final = 256
_HOP: Final = 128


@dataclass(frozen=True, slots=True)
class Vad:
    """How much one step takes; the network's own sizes are those of its checkpoint."""

    chunks: int
    frequencies: int = 129
    channels: tuple[int, int, int, int] = (128, 64, 64, 128)
    strides: tuple[int, int, int, int] = (1, 2, 2, 1)

    def parameters(self) -> Shapes:
        """Names and shapes in the order in which programs take them."""
        shapes: Shapes = {"spectrum": (2 * self.frequencies, 1, _WINDOW)}
        into = self.frequencies
        for index, out in enumerate(self.channels):
            shapes |= {f"{index}.weight": (out, into, 3), f"{index}.bias": (out,)}
            into = out
        for part in ("input", "hidden"):
            shapes |= {f"cell.{part}.weight": (4 * into, into), f"cell.{part}.bias": (4 * into,)}
        return shapes | {"output.weight": (1, into, 1), "output.bias": (1,)}

    def inputs(self) -> tuple[Tensor, ...]:
        """Samples of -1 to 1; what the step before gave back, or zeros at the start of a stream."""
        audio = Tensor("audio", "float32", (self.chunks * CHUNK,))
        return (audio, *self._stream())

    def outputs(self) -> tuple[Tensor, ...]:
        """The probability that somebody speaks in each chunk; what the next step is to be given."""
        return (Tensor("probabilities", "float32", (self.chunks,)), *self._stream())

    def programs(self, slots: Sequence[int]) -> tuple[Draft, ...]:
        """`call` for each number of streams side by side."""
        return tuple(
            Draft(f"call-{b}", "call", b, 1, 1, self._call, tuple(f32(b, *each.shape) for each in self.inputs()))
            for b in slots
        )

    def _stream(self) -> tuple[Tensor, ...]:
        return Tensor("context", "float32", (CONTEXT,)), Tensor("state", "float32", (2, self.channels[-1]))

    def _call(
        self, params: list[Array], nothing: State, audio: Array, context: Array, state: Array
    ) -> tuple[State, Array]:
        weights = dict(zip(self.parameters(), params, strict=True))
        pieces = audio.reshape(audio.shape[0], self.chunks, CHUNK)
        before = jnp.concatenate([context[:, None], pieces[:, :-1, -CONTEXT:]], axis=1)
        features = self._encode(weights, jnp.concatenate([before, pieces], axis=2))
        hidden, (h, c) = _remember(weights, features, state[:, 0], state[:, 1])
        scores = _product("bnc,oc->bn", jax.nn.relu(hidden), weights["output.weight"][..., 0])
        probabilities = jax.nn.sigmoid(scores + weights["output.bias"])
        return nothing, jnp.concatenate([probabilities, pieces[:, -1, -CONTEXT:], h, c], axis=1)

    def _encode(self, weights: dict[str, Array], heard: Array) -> Array:
        """Features f32[B,N,D] of chunks f32[B,N,CONTEXT + CHUNK], each for itself."""
        mirrored = jnp.concatenate([heard, heard[..., -2 : -CONTEXT - 2 : -1]], axis=-1)
        starts = range(0, mirrored.shape[-1] - _WINDOW + 1, _HOP)
        frames = jnp.stack([mirrored[..., start : start + _WINDOW] for start in starts], axis=2)
        waves = _product("bntw,fw->bntf", frames, weights["spectrum"][:, 0])
        real, imaginary = jnp.split(waves, 2, axis=-1)
        x = jnp.sqrt(jnp.square(real) + jnp.square(imaginary))
        for index, stride in enumerate(self.strides):
            x = jax.nn.relu(_convolved(x, weights[f"{index}.weight"], stride) + weights[f"{index}.bias"])
        return x[:, :, 0]  # the strides leave one frame


def _convolved(x: Array, weight: Array, stride: int) -> Array:
    """x f32[B,N,T,C] along T with a weight [out, C, 3], one frame of zeros on either side."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    taps = [padded[:, :, tap : tap + x.shape[2] : stride] for tap in range(3)]
    return _product("bntck,ock->bnto", jnp.stack(taps, axis=-1), weight)


def _remember(weights: dict[str, Array], x: Array, h: Array, c: Array) -> tuple[Array, tuple[Array, Array]]:
    """The LSTM cell (Hochreiter and Schmidhuber 1997) over x f32[B,N,D]: its outputs f32[B,N,D], and its state at the end."""
    into = _product("bnc,oc->bno", x, weights["cell.input.weight"])
    into = into + weights["cell.input.bias"] + weights["cell.hidden.bias"]
    outputs = []
    for step in range(x.shape[1]):
        gates = into[:, step] + _product("bc,oc->bo", h, weights["cell.hidden.weight"])
        let_in, keep, new, let_out = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(let_in) * jnp.tanh(new)
        h = jax.nn.sigmoid(let_out) * jnp.tanh(c)
        outputs.append(h)
    return jnp.stack(outputs, axis=1), (h, c)


def _product(subscripts: str, a: Array, b: Array) -> Array:
    """In full float32 on every platform."""
    product: Array = jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)
    return product
