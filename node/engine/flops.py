"""The work in a program, counted from its StableHLO: what seeds default prices and caps on time.

The one count of FLOPs: publishers write it into manifests, nodes recount it. It is of the static program, so the same on
every machine and in every version: multiply-adds times two of each `dot_general` and `convolution`; the largest branch of a
`case`; a `while` as often as it turns, where that can be read off it, else once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jax import export
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from .artifact import callee, context, functions_of, refuse


@dataclass(frozen=True, slots=True)
class Work:
    """Of one run."""

    flops: int = 0
    moved_bytes: int = 0
    """Operands and results of each operation: an upper bound, since a compiler fuses most of them away."""
    bounded: bool = True
    """Whether every loop's turns could be read; if not, both figures are of one turn of those."""

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved_bytes + other.moved_bytes, self.bounded and other.bounded)

    def times(self, turns: int) -> Work:
        """So many runs one after the other."""
        return Work(turns * self.flops, turns * self.moved_bytes, self.bounded)


def count(functions: Mapping[str, ir.Block]) -> Work:
    """The work of `main`. Functions must not call themselves, types be static: `admission` sees to that."""
    return _Counter(functions).function("main")


def of_exported(exported: export.Exported) -> Work:
    """The work of a program that was just exported here."""
    with context():
        module: ir.Module = exported.mlir_module(serialized=False)  # has to outlive what is read of it
        return count(functions_of(module))


def type_bytes(value_type: ir.Type) -> int:
    """The size of an array of this type; dimensions of length 0 count as 1.

    Raises `EngineError(bundle_refused)` unless it is a ranked tensor of static shape and a known element type.
    """
    if not isinstance(value_type, ir.RankedTensorType) or value_type.encoding is not None:
        refuse(f"{str(value_type)[:64]} is not an array")
    if not value_type.has_static_shape:
        refuse(f"{str(value_type)[:64]} has no fixed shape")
    if (element := str(value_type.element_type)) not in ELEMENT_BYTES:
        refuse(f"{str(value_type)[:64]} is of a type that programs may not use")
    return math.prod(max(1, length) for length in value_type.shape) * ELEMENT_BYTES[element]


ELEMENT_BYTES: Final = {
    "i1": 1, "i8": 1, "ui8": 1, "i16": 2, "ui16": 2, "i32": 4, "ui32": 4, "i64": 8, "ui64": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "complex<f32>": 8, "complex<f64>": 16,
}  # fmt: skip
"""The element types that programs may use."""


_WORTH_A_LOOK: Final = frozenset({
    "func.call", "stablehlo.composite", "stablehlo.convolution", "stablehlo.custom_call", "stablehlo.dot_general"
})  # fmt: skip
"""Operations without regions that are more than what they move."""


class _Counter:
    def __init__(self, functions: Mapping[str, ir.Block]) -> None:
        self._functions = functions
        self._counted: dict[str, Work] = {}
        self._sizes: dict[ir.Type, int] = {}

    def function(self, name: str) -> Work:
        if name not in self._counted:
            self._counted[name] = self._block(self._functions[name])
        return self._counted[name]

    def _block(self, block: ir.Block) -> Work:
        flops, moved, bounded = 0, 0, True
        for view in block.operations:
            operation = view.operation
            if operation.name not in _WORTH_A_LOOK and not len(operation.regions):
                moved += self._moved(operation)
                continue
            part = self._operation(operation)
            flops, moved, bounded = flops + part.flops, moved + part.moved_bytes, bounded and part.bounded
        return Work(flops, moved, bounded)

    def _operation(self, operation: ir.Operation) -> Work:
        if called := callee(operation):
            return self.function(called)
        match operation.name:
            case "stablehlo.case" | "stablehlo.if":
                branches = [self._block(region.blocks[0]) for region in operation.regions]
                return Work(
                    max(branch.flops for branch in branches),
                    max(branch.moved_bytes for branch in branches),
                    all(branch.bounded for branch in branches),
                )
            case "stablehlo.while":
                turn = sum((self._block(region.blocks[0]) for region in operation.regions), Work())
                turns = _turns(operation)
                return turn.times(turns) if turns is not None else Work(turn.flops, turn.moved_bytes, bounded=False)
        inside = sum((self._block(region.blocks[0]) for region in operation.regions), Work())
        return inside + Work(_flops(operation), self._moved(operation))

    def _moved(self, operation: ir.Operation) -> int:
        if operation.name in ("func.return", "stablehlo.return"):
            return 0
        return sum(self._size(value.type) for value in (*operation.operands, *operation.results))

    def _size(self, value_type: ir.Type) -> int:
        if value_type not in self._sizes:
            self._sizes[value_type] = type_bytes(value_type)
        return self._sizes[value_type]


def _flops(operation: ir.Operation) -> int:
    if operation.name == "stablehlo.dot_general":
        numbers = stablehlo.DotDimensionNumbers(operation.attributes["dot_dimension_numbers"])
        left = _shape(operation.operands[0])
        return (
            2 * math.prod(_shape(operation.results[0])) * math.prod(left[d] for d in numbers.lhs_contracting_dimensions)
        )
    if operation.name == "stablehlo.convolution":
        layout = stablehlo.ConvDimensionNumbers(operation.attributes["dimension_numbers"])
        kernel = _shape(operation.operands[1])
        taps = [*layout.kernel_spatial_dimensions, layout.kernel_input_feature_dimension]
        return 2 * math.prod(_shape(operation.results[0])) * math.prod(kernel[d] for d in taps)
    if operation.name == "stablehlo.custom_call":  # the one kernel that is admitted: rows of x by weights in blocks
        return 2 * math.prod(_shape(operation.results[0])) * _shape(operation.operands[0])[-1]
    return 0


def _shape(value: ir.Value[ir.Type]) -> list[int]:
    return list(ir.RankedTensorType(value.type).shape)


def _turns(loop: ir.Operation) -> int | None:
    """How often a loop of jax's `fori_loop` and `scan` turns: while counter < limit, counter + step, all constants."""
    condition, body = (region.blocks[0] for region in loop.regions)
    test = _definer(_last(condition).operands[0])
    if test is None or test.name != "stablehlo.compare" or "LT" not in str(test.attributes["comparison_direction"]):
        return None
    counter = test.operands[0]
    if not isinstance(counter, ir.BlockArgument) or counter.owner != condition:
        return None
    place = counter.arg_number
    step = _definer(_last(body).operands[place])
    if step is None or step.name != "stablehlo.add":
        return None
    added = [operand for operand in step.operands if operand != body.arguments[place]]
    start, limit = _constant(loop.operands[place]), _constant(test.operands[1])
    stride = _constant(added[0]) if len(added) == 1 else None
    if start is None or limit is None or stride is None or stride <= 0:
        return None
    return max(0, -(-(limit - start) // stride))


def _last(block: ir.Block) -> ir.Operation:
    return block.operations[len(block.operations) - 1].operation


def _definer(value: ir.Value[ir.Type]) -> ir.Operation | None:
    return None if isinstance(owner := value.owner, ir.Block) else owner.operation


def _constant(value: ir.Value[ir.Type]) -> int | None:
    definer = _definer(value)
    if definer is None or definer.name != "stablehlo.constant" or _shape(value):
        return None
    content = definer.attributes["value"]
    return int(content[0]) if isinstance(content, ir.DenseIntElementsAttr) else None
