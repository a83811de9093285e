"""How a program for several devices lies over them: what it may say of that, and nothing more.

A sharded program computes what it would on one device. Its shapes are whole, and every transfer between devices is made by the
compiler, from what the program says beside its operations: a mesh of named axes and, of a value, which axes divide which of its
dimensions (Shardy, https://openxla.org/shardy). So FLOPs, sizes and the proof of the slots hold as they stand. Whatever speaks
of a single device (manual computations, collectives, device numbers, sums that are left unfinished) is on no list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import sdy

from .artifact import BROKEN, refuse

Axes: TypeAlias = Mapping[str, int]
"""Of a mesh: lengths by name, in order. Their product is the number of devices; none where there is one device."""

MESH, CONSTRAINT, SHARDING = "sdy.mesh", "sdy.sharding_constraint", "sdy.sharding"
"""The mesh, the operation that says how a value lies, and the attribute of arguments and results that does."""

AXES_MAX: Final = 8
"""Programs of the largest machines have four."""

_MESH_NAME: Final = "mesh"
_AGAIN: Final = "stablehlo.mesh"
"""StableHLO's own word for the mesh, which jax 0.10 writes beside Shardy's."""
_MESH_ATTRIBUTES: Final = frozenset({"mesh", _AGAIN, "sym_name", "sym_visibility"})


def axes_of(module: ir.Module, devices: int) -> Axes:
    """The axes of the module's mesh of so many devices; none for one.

    Raises `EngineError(bundle_refused)` if it has another mesh, or several.
    """
    meshes = [view.operation for view in module.body.operations if view.operation.name == MESH]
    # [REJECT] It has another mesh than that of the manifest's devices.
    if len(meshes) != (devices > 1):
        refuse(f"it has {len(meshes)} meshes, for {devices} devices")
    if not meshes:
        return {}
    (operation,) = meshes
    mesh = sdy.MeshAttr(operation.attributes["mesh"])
    found = [sdy.MeshAxisAttr(each) for each in mesh.axes]
    axes = {str(each.name): int(each.size) for each in found}
    if len(axes) != len(found) or not 0 < len(axes) <= AXES_MAX or not all(map(str.isidentifier, axes)):
        refuse("its mesh has axes that programs may not have")
    if min(axes.values()) < 1 or prod(axes.values()) != devices or list(mesh.device_ids):
        refuse(f"its mesh is not of {devices} devices in their order")
    twice = ", ".join(f'{{name = "{name}", size = {size} : i64}}' for name, size in axes.items())
    for each in operation.attributes:
        if each not in _MESH_ATTRIBUTES:
            refuse(f"its mesh carries {each[:64]!r}, which programs may not say")
    said = operation.attributes[_AGAIN] if _AGAIN in operation.attributes else f"{{axes = [{twice}]}}"  # noqa: SIM401
    if str(said) != f"{{axes = [{twice}]}}":
        refuse("its mesh says two things of its axes")
    if ir.StringAttr(operation.attributes["sym_name"]).value != _MESH_NAME:
        refuse("its mesh has another name than jax gives")
    return axes


def check_sharding(attribute: ir.Attribute, value_type: ir.Type, axes: Axes) -> None:
    """Raises `EngineError(bundle_refused)` unless it divides such a value evenly, over whole axes of the mesh, each once."""
    # [REJECT] A sharding is of another mesh, or divides what it cannot.
    sharding, shape = sdy.TensorShardingAttr(attribute), list(ir.RankedTensorType(value_type).shape)
    if str(sharding.mesh_or_ref) != f"@{_MESH_NAME}" or list(sharding.unreduced_axes):
        refuse(f"{str(attribute)[:64]} is a sharding that programs may not say")
    dimensions = [sdy.DimensionShardingAttr(each) for each in sharding.dimension_shardings]
    if len(dimensions) != len(shape) or any(each.priority is not None for each in dimensions):
        refuse(f"{str(attribute)[:64]} does not fit {str(value_type)[:64]}")
    used = [sdy.AxisRefAttr(axis) for each in dimensions for axis in each.axes]
    used += [sdy.AxisRefAttr(axis) for axis in sharding.replicated_axes]
    names = [str(each.name) for each in used]
    if len(set(names)) != len(names) or not set(names) <= axes.keys() or any(each.sub_axis_info for each in used):
        refuse(f"{str(attribute)[:64]} has axes that its mesh has not")
    for length, each in zip(shape, dimensions, strict=True):
        parts = prod(axes[str(sdy.AxisRefAttr(axis).name)] for axis in each.axes)
        if length % parts:
            refuse(f"{str(value_type)[:64]} does not divide by {parts} devices")


def places_untrusted(exported: export.Exported, axes: Axes) -> tuple[Sequence[Any], Sequence[Any]]:
    """Where each argument and each result lies, over this machine's first devices; whole on each if it does not say.

    Of an admitted artifact. Raises `EngineError(bundle_refused)` if what it says outside of its module is of another mesh.
    """
    sizes = tuple(axes.values())
    mesh = Mesh(np.array(jax.devices()[: prod(sizes)]).reshape(sizes), tuple(axes))
    whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]  # untyped in jax 0.10
    try:
        taken, given = exported.in_shardings_jax(mesh), exported.out_shardings_jax(mesh)
    except BROKEN as error:
        refuse(f"where its arguments lie cannot be read: {str(error).partition(chr(10))[0][:200]}")
    return [each or whole for each in taken], [each or whole for each in given]
