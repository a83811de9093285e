"""Admission: what a node demands of a stranger's program before it compiles it, and before it runs it.

A program is admitted by what it is seen to hold, never by what it is not: every operation, attribute and type is on a list
here, every size is static and bounded. What passes can compute wrong things, slowly; it cannot reach anything but its own
arguments, and how long and how large it may get is known. The rules: `spec/07-bundles.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from jax import export
from jaxlib.mlir import ir

from ...protocol.limits import PROGRAM_CONSTANTS_BYTES_MAX, PROGRAM_DEPTH_MAX, PROGRAM_OPERATIONS_MAX
from .artifact import BROKEN, Artifact, Signature, callee, read_untrusted, refuse
from .flops import Work, count, type_bytes
from .operations import (
    ARGUMENT_ATTRIBUTES,
    ATTRIBUTES,
    COMPOSITE_ATTRIBUTES,
    COMPOSITES,
    CUSTOM_CALL_ATTRIBUTES,
    CUSTOM_CALLS,
    FUNCTION_ATTRIBUTES,
    MODULE_ATTRIBUTES,
    OPERATIONS,
)
from .sharding import CONSTRAINT, MESH, SHARDING, Axes, axes_of, check_sharding
from .sizes import mib
from .slots import Isolation, prove

RESULTS_RATIO_MAX: Final = 64
"""All results of all operations together, beside the memory granted: a compiler reuses or never makes most of them."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A program that may be compiled."""

    exported: export.Exported
    work: Work
    isolation: Isolation
    """Whether jobs of different clients may share a run of it."""
    axes: Axes
    """Of the mesh that it lies over, if it is for several devices."""


class MemoryReport(Protocol):
    """What XLA says that a compiled program takes, in bytes, of each of its devices."""

    argument_size_in_bytes: int
    output_size_in_bytes: int
    alias_size_in_bytes: int
    temp_size_in_bytes: int
    generated_code_size_in_bytes: int


def admit_untrusted(
    artifact: bytes, signature: Signature, *, flops: int, memory_bytes: int, slots: int = 1
) -> Admitted:
    """The program, if it keeps every rule; `flops` is what the manifest claims, `slots` how many sequences a run takes, and
    `memory_bytes` is granted of each device.

    Raises `EngineError(bundle_refused)` naming the rule, and the operation if it is one. To be called under a limit on time.
    """
    try:
        opened = read_untrusted(artifact, signature)
        axes = axes_of(opened.module, signature.devices)
        _Walk(opened, memory_bytes * signature.devices, axes).check()
        work = count(opened.functions)
        # [REJECT] The manifest claims other FLOPs than the program has.
        if work.flops != flops:
            refuse(f"its manifest claims {flops} FLOPs, the program has {work.flops}")
        return Admitted(opened.exported, work, prove(opened, slots), axes)
    except BROKEN as error:
        refuse(f"its artifact cannot be read: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")


def needed_bytes(report: MemoryReport | None) -> int:
    """Memory of one run of a compiled program, of each device; 0 by a back end that does not say, where the static bounds
    alone hold."""
    if report is None:
        return 0
    arguments, outputs = report.argument_size_in_bytes, report.output_size_in_bytes - report.alias_size_in_bytes
    return arguments + outputs + report.temp_size_in_bytes + report.generated_code_size_in_bytes


def check_memory(needed_bytes: int, memory_bytes: int) -> None:
    """Raises `EngineError(bundle_refused)` if a run would take more memory than is granted."""
    # [REJECT] Compiled, it takes more memory than the node grants.
    if needed_bytes > memory_bytes:
        refuse(f"a run takes {mib(needed_bytes)}, the node grants {mib(memory_bytes)}")


class _Walk:
    """One pass over every operation; each function is counted as often as it is called.

    What it returns of a part are its operations, the bytes of their results, and the deepest level in it.
    """

    def __init__(self, artifact: Artifact, memory_bytes: int, axes: Axes) -> None:
        self._artifact = artifact
        self._axes = axes
        self._memory_bytes = memory_bytes
        self._functions: dict[str, tuple[int, int, int]] = {}
        """Those that are done."""
        self._open: set[str] = set()
        self._sizes: dict[ir.Type, int] = {}
        self._constant_bytes = 0

    def check(self) -> None:
        # [REJECT] The module or one of its functions carries instructions to the compiler.
        root = self._artifact.module.operation
        _check_attributes(root, MODULE_ATTRIBUTES)
        devices = self._artifact.signature.devices
        for name, wanted in (("mhlo.num_partitions", devices), ("mhlo.num_replicas", 1)):
            if name in root.attributes and ir.IntegerAttr(root.attributes[name]).value != wanted:
                refuse(f"its module is for another number of devices ({name})")
        for view in self._artifact.module.body.operations:
            if view.operation.name != MESH:
                _check_function(view.operation, self._axes)
        for name in self._artifact.functions:
            self._function(name)

    def _function(self, name: str) -> tuple[int, int, int]:
        if name in self._functions:
            return self._functions[name]
        # [REJECT] A function calls itself, or one that is not there.
        if name in self._open or name not in self._artifact.functions:
            refuse(f"its function {name[:64]!r} calls itself, or is missing")
        if len(self._open) > PROGRAM_DEPTH_MAX:
            refuse(_TOO_DEEP)
        self._open.add(name)
        self._functions[name] = self._block(self._artifact.functions[name], 0)
        self._open.remove(name)
        return self._functions[name]

    def _block(self, block: ir.Block, depth: int) -> tuple[int, int, int]:
        # [REJECT] It nests too deep.
        if depth > PROGRAM_DEPTH_MAX:
            refuse(_TOO_DEEP)
        for argument in block.arguments:
            self._size(argument.type, "an argument")
        operations = results = deepest = 0
        for view in block.operations:
            more = self._operation(view.operation, depth)
            operations, results, deepest = operations + more[0], results + more[1], max(deepest, more[2])
            # [REJECT] It has too many operations, or results too large together.
            if operations > PROGRAM_OPERATIONS_MAX:
                refuse(f"it has more than {PROGRAM_OPERATIONS_MAX} operations")
            if results > RESULTS_RATIO_MAX * self._memory_bytes:
                refuse(f"its results come to more than {RESULTS_RATIO_MAX} times the {mib(self._memory_bytes)} granted")
        return operations, results, max(depth, deepest)

    def _operation(self, operation: ir.Operation, depth: int) -> tuple[int, int, int]:
        name = operation.name
        # [REJECT] The operation is not on the list.
        if name == "stablehlo.custom_call":
            _check_custom_call(operation)
        elif name == CONSTRAINT and self._axes:
            check_sharding(operation.attributes["sharding"], operation.operands[0].type, self._axes)
        elif name not in OPERATIONS:
            refuse(f"{name[:64]} is not an operation that programs may use")
        # [REJECT] It carries an attribute that is not on the list.
        _check_attributes(operation, _ATTRIBUTES_OF.get(name, ATTRIBUTES))
        if name == "stablehlo.composite":
            _check_composite(operation)
        self._count_constants(operation)
        results = sum(self._size(result.type, name) for result in operation.results)
        operations, deepest = 1, depth
        parts = [self._block(block, depth + 1) for region in operation.regions for block in region.blocks]
        if function := callee(operation):
            called, made, levels = self._function(function)
            parts.append((called, made, depth + 1 + levels))
        for part in parts:
            operations, results, deepest = operations + part[0], results + part[1], max(deepest, part[2])
        if deepest > PROGRAM_DEPTH_MAX:
            refuse(_TOO_DEEP)
        return operations, results, deepest

    def _size(self, value_type: ir.Type, name: str) -> int:
        if (size := self._sizes.get(value_type)) is not None:
            return size
        size = self._sizes[value_type] = type_bytes(value_type)
        # [REJECT] One array is larger than the memory granted.
        if size > self._memory_bytes:
            refuse(f"{name} makes {str(value_type)[:64]}, larger than the {mib(self._memory_bytes)} granted")
        return size

    def _count_constants(self, operation: ir.Operation) -> None:
        if operation.name != "stablehlo.constant":
            return
        value = operation.attributes["value"]
        # [REJECT] It holds large constants, or some that lie outside of it.
        if not isinstance(value, ir.DenseElementsAttr):
            refuse("one of its constants is not written out")
        if not value.is_splat:
            self._constant_bytes += type_bytes(value.type)
        if self._constant_bytes > PROGRAM_CONSTANTS_BYTES_MAX:
            refuse(f"its constants take more than {mib(PROGRAM_CONSTANTS_BYTES_MAX)}")


def _check_attributes(operation: ir.Operation, allowed: frozenset[str]) -> None:
    for name in operation.attributes:
        if name not in allowed:
            refuse(f"{operation.name[:64]} carries {name[:64]!r}, which programs may not say")


def _check_custom_call(operation: ir.Operation) -> None:
    target = ir.StringAttr(operation.attributes["call_target_name"]).value
    if target not in CUSTOM_CALLS:
        refuse(f"it calls native code: custom_call {target[:64]!r}")
    # [REJECT] It is called with a configuration, or with arrays that do not lie row by row.
    if "mhlo.backend_config" in operation.attributes:
        _check_names(operation.attributes["mhlo.backend_config"], frozenset())
    for values, name in ((operation.operands, "operand_layouts"), (operation.results, "result_layouts")):
        if name in operation.attributes:
            layouts = map(ir.DenseIntElementsAttr, ir.ArrayAttr(operation.attributes[name]))
            found = [[int(layout[index]) for index in range(len(layout))] for layout in layouts]
            if found != [list(reversed(range(ir.RankedTensorType(value.type).rank))) for value in values]:
                refuse(f"custom_call {target[:64]!r} has {name} that programs may not say")


def _check_composite(operation: ir.Operation) -> None:
    # [REJECT] It is called by a name that is not on the list.
    if (known_as := ir.StringAttr(operation.attributes["name"]).value) not in COMPOSITES:
        refuse(f"composite {known_as[:64]!r} is not an operation that programs may use")
    if "composite_attributes" in operation.attributes:
        _check_names(operation.attributes["composite_attributes"], COMPOSITE_ATTRIBUTES)


def _check_names(attributes: ir.Attribute, allowed: frozenset[str]) -> None:
    named = ir.DictAttr(attributes)
    for name in (named[index].name for index in range(len(named))):
        if name not in allowed:
            refuse(f"it carries {name[:64]!r}, which programs may not say")


def _check_function(function: ir.Operation, axes: Axes) -> None:
    _check_attributes(function, FUNCTION_ATTRIBUTES)
    typed = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    for which, types in (("arg_attrs", typed.inputs), ("res_attrs", typed.results)):
        if which not in function.attributes:
            continue
        for each, value_type in zip(ir.ArrayAttr(function.attributes[which]), types, strict=True):
            _check_names(each, ARGUMENT_ATTRIBUTES | {SHARDING} if axes else ARGUMENT_ATTRIBUTES)
            if SHARDING in (said := ir.DictAttr(each)):
                check_sharding(said[SHARDING], value_type, axes)


_ATTRIBUTES_OF: Final = {"stablehlo.custom_call": CUSTOM_CALL_ATTRIBUTES, CONSTRAINT: frozenset({"sharding"})}
_TOO_DEEP: Final = f"its operations are nested more than {PROGRAM_DEPTH_MAX} deep"
