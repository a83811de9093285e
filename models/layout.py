"""How a model's programs lie over several devices: tensor parallelism, said of parameters and state alone.

The functions stay as they are. What moves between the devices is the compiler's to find (`node/engine/sharding.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

AXIS: Final = "devices"
"""The mesh's one axis."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Parameters and carried arrays, each divided along one dimension or whole on every device. All else is whole."""

    devices: int = 1
    parameters: Mapping[str, int] = field(default_factory=dict)
    """The dimension along which a parameter is divided, by name; whole are those that are not here."""
    state: tuple[int | None, ...] = ()
    """The same of each carried array, its dimensions counted as of one sequence; None: whole."""

    @property
    def whole(self) -> NamedSharding:
        """On every device all of it."""
        return self._along(None)

    def of_parameter(self, name: str) -> NamedSharding:
        """Where it lies."""
        return self._along(self.parameters.get(name))

    def of_state(self, index: int) -> NamedSharding:
        """Where the carried array of that number lies, the slots in front of its dimensions."""
        axis = self.state[index] if index < len(self.state) else None
        return self._along(None if axis is None else axis + 1)

    def _along(self, dimension: int | None) -> NamedSharding:
        axes = [] if dimension is None else [*[None] * dimension, AXIS]
        spec = PartitionSpec(*axes)  # type: ignore[no-untyped-call]  # untyped in jax 0.10
        return NamedSharding(AbstractMesh((self.devices,), (AXIS,)), spec)


ONE_DEVICE: Final = Layout()
