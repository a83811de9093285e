"""The numerics class of what this machine computes with a bundle; see `protocol.numerics`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import jax
from blake3 import blake3
from jaxlib.version import __version__ as jaxlib_version

from ...protocol.bundle import Manifest, Program
from ...protocol.numerics import variant
from .device import Array
from .processor import features

_VECTORS: Final = (("avx512", "avx512f"), ("avx2", "avx2"), ("avx", "avx"))
"""Instruction sets by the flag that shows them, the widest first."""


def numerics_class(params: Sequence[Array], manifest: Manifest) -> str:
    """Precision, jaxlib, platform, instruction set or device kind, flags if there are any, and every variant that may run.

    `2xavx512`, say, are two devices over which each program lies: sums are split among them.
    """
    precision = "+".join(sorted({param.dtype.name for param in params})) or "float32"
    device = jax.devices()[0]
    kind = _instruction_set() if device.platform == "cpu" else device.device_kind.replace(" ", "-")
    kind = f"{manifest.devices}x{kind}" if manifest.devices else kind
    flags = os.environ.get("XLA_FLAGS", "")
    machine = [precision, f"jaxlib-{jaxlib_version}", device.platform, kind.replace("/", "-")]
    return "/".join([*machine, *([blake3(flags.encode()).hexdigest(4)] if flags else []), _variants(manifest.programs)])


def _variants(programs: Sequence[Program]) -> str:
    return "+".join(dict.fromkeys(map(variant, sorted(programs, key=lambda each: (each.slots, each.context)))))


def _instruction_set() -> str:
    """The widest vectors that XLA compiles for here, by which its sums are ordered."""
    return next((name for name, flag in _VECTORS if flag in features()), os.uname().machine)
