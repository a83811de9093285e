"""Where an operation leaves the slots that its operands have: a rule for each that has one (see `slots`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo


@dataclass(frozen=True, slots=True)
class Slots:
    """Where a value's slots lie."""

    axis: int
    inner: int = 1
    """So many neighbours along the axis are of one slot: more than 1 after another axis was merged into it."""


State: TypeAlias = Slots | None


class NotProvenError(Exception):
    """The proof ends here."""


def same(operation: ir.Operation, states: Sequence[State]) -> State:
    """The one place where all of them that have slots have them."""
    found = {state for state in states if state}
    if len(found) > 1:
        stop(operation, "it brings different slots together")
    return found.pop() if found else None


def _keeps(operation: ir.Operation, states: Sequence[State], axes: Iterable[int], why: str) -> Slots:
    """The slots are where they were, unless they lie along one of these axes."""
    state = same(operation, states)
    assert state
    if state.axis in axes:
        stop(operation, why)
    return state


def _broadcast(operation: ir.Operation, states: Sequence[State]) -> State:
    state = _keeps(operation, states, (), "")
    return Slots(_ints(operation, "broadcast_dimensions")[state.axis], state.inner)


def _transpose(operation: ir.Operation, states: Sequence[State]) -> State:
    state = _keeps(operation, states, (), "")
    return Slots(_ints(operation, "permutation").index(state.axis), state.inner)


def _bitcast(operation: ir.Operation, states: Sequence[State]) -> State:
    joined = len(shape_of(operation.results[0])) < (rank := len(shape_of(operation.operands[0])))
    return _keeps(operation, states, [rank - 1] if joined else [], "it joins the bits of several slots")


def _concatenate(operation: ir.Operation, states: Sequence[State]) -> State:
    along = ir.IntegerAttr(operation.attributes["dimension"]).value
    return _keeps(operation, states, [along], "it moves slots along their axis")


def _reverse(operation: ir.Operation, states: Sequence[State]) -> State:
    return _keeps(operation, states, _ints(operation, "dimensions"), "it reverses the slots")


def _sort(operation: ir.Operation, states: Sequence[State]) -> State:
    along = ir.IntegerAttr(operation.attributes["dimension"]).value
    return _keeps(operation, states, [along], "it sorts the slots")


def _top_k(operation: ir.Operation, states: Sequence[State]) -> State:
    return _keeps(operation, states, [len(shape_of(operation.operands[0])) - 1], "it chooses among the slots")


def _slice(operation: ir.Operation, states: Sequence[State]) -> State:
    shape, strides = shape_of(operation.operands[0]), _ints(operation, "strides")
    bounds = list(zip(_ints(operation, "start_indices"), _ints(operation, "limit_indices"), strict=True))
    cut = [axis for axis, length in enumerate(shape) if bounds[axis] != (0, length) or strides[axis] != 1]
    return _keeps(operation, states, cut, "it takes some of the slots")


def _pad(operation: ir.Operation, states: Sequence[State]) -> State:
    pads = [_ints(operation, name) for name in ("edge_padding_low", "edge_padding_high", "interior_padding")]
    return _keeps(
        operation, states, [axis for axis, pad in enumerate(zip(*pads, strict=True)) if any(pad)], "it moves slots"
    )


def _dynamic_slice(operation: ir.Operation, states: Sequence[State]) -> State:
    shape, sizes = shape_of(operation.operands[0]), _ints(operation, "slice_sizes")
    cut = [axis for axis, length in enumerate(shape) if sizes[axis] != length]
    return _keeps(operation, states, cut, "it takes some of the slots, from a computed place on")


def _dynamic_update_slice(operation: ir.Operation, states: Sequence[State]) -> State:
    whole, part = shape_of(operation.operands[0]), shape_of(operation.operands[1])
    cut = [axis for axis, length in enumerate(whole) if part[axis] != length]
    return _keeps(operation, states, cut, "it writes to some of the slots, from a computed place on")


def _reduce(operation: ir.Operation, states: Sequence[State]) -> State:
    gone = _ints(operation, "dimensions")
    state = _keeps(operation, states, gone, "it reduces over the slots")
    return Slots(state.axis - sum(axis < state.axis for axis in gone), state.inner)


def _reduce_window(operation: ir.Operation, states: Sequence[State]) -> State:
    rank = len(shape_of(operation.operands[0]))
    names = ("window_dimensions", "window_strides", "base_dilations", "window_dilations")
    widths = [_ints(operation, name) if name in operation.attributes else [1] * rank for name in names]
    padding = _elements(operation, "padding") if "padding" in operation.attributes else [0] * (2 * rank)
    still = [
        all(width[axis] == 1 for width in widths) and padding[2 * axis] == padding[2 * axis + 1] == 0
        for axis in range(rank)
    ]
    return _keeps(operation, states, [axis for axis in range(rank) if not still[axis]], "its window spans slots")


def _dot(operation: ir.Operation, states: Sequence[State]) -> State:
    numbers = stablehlo.DotDimensionNumbers(operation.attributes["dot_dimension_numbers"])
    sides = [
        (list(numbers.lhs_batching_dimensions), list(numbers.lhs_contracting_dimensions)),
        (list(numbers.rhs_batching_dimensions), list(numbers.rhs_contracting_dimensions)),
    ]
    free = [
        [axis for axis in range(len(shape_of(operand))) if axis not in batching and axis not in contracted]
        for operand, (batching, contracted) in zip(operation.operands, sides, strict=True)
    ]
    places: list[State] = []
    for side, state in enumerate(states):
        if state is None:
            continue
        batching, contracted = sides[side]
        if state.axis in contracted:
            stop(operation, "it sums products over the slots")
        if state.axis in batching:
            places.append(Slots(batching.index(state.axis), state.inner))
        else:
            before = len(batching) + (len(free[0]) if side else 0)
            places.append(Slots(before + free[side].index(state.axis), state.inner))
    return same(operation, places)


def _custom_call(operation: ir.Operation, states: Sequence[State]) -> State:
    """The one kernel that is admitted: rows of its first operand by what all of them read."""
    rows, *read = states
    if any(read) or rows is None or rows.axis != 0:
        stop(operation, "the slots are not its rows")
    return rows


def _convolution(operation: ir.Operation, states: Sequence[State]) -> State:
    layout = stablehlo.ConvDimensionNumbers(operation.attributes["dimension_numbers"])
    image, kernel = states
    grouped = ir.IntegerAttr(operation.attributes["batch_group_count"]).value != 1
    if kernel or grouped or image is None or image.axis != layout.input_batch_dimension:
        stop(operation, "the slots are not its batch")
    return Slots(layout.output_batch_dimension, image.inner)


def _gather(operation: ir.Operation, states: Sequence[State]) -> State:
    numbers = stablehlo.GatherDimensionNumbers(operation.attributes["dimension_numbers"])
    source, index = states
    offsets, sizes = list(numbers.offset_dims), _ints(operation, "slice_sizes")
    shape = shape_of(operation.operands[0])
    batch = [axis for axis in range(len(shape_of(operation.results[0]))) if axis not in offsets]
    rows = _but(len(shape_of(operation.operands[1])), numbers.index_vector_dim)
    paired = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    if index and index.axis not in rows:
        stop(operation, "its places are made of several slots")
    if source is None:
        assert index
        return Slots(batch[rows.index(index.axis)], index.inner)
    if (row := paired.get(source.axis)) is not None:
        if index not in (None, Slots(row, source.inner)):
            stop(operation, "it takes from other slots than those of its places")
        return Slots(batch[rows.index(row)], source.inner)
    kept = [axis for axis in range(len(shape)) if axis not in numbers.collapsed_slice_dims and axis not in paired]
    if index or source.axis not in kept or sizes[source.axis] != shape[source.axis]:
        stop(operation, "it takes from computed places among the slots")
    return Slots(offsets[kept.index(source.axis)], source.inner)


def _scatter(operation: ir.Operation, states: Sequence[State]) -> State:
    numbers = stablehlo.ScatterDimensionNumbers(operation.attributes["scatter_dimension_numbers"])
    arrays = len(states) // 2
    target, index, update = same(operation, states[:arrays]), states[arrays], same(operation, states[arrays + 1 :])
    whole, part = shape_of(operation.operands[0]), shape_of(operation.operands[arrays + 1])
    windows, dropped = list(numbers.update_window_dims), set(numbers.inserted_window_dims)
    rows = _but(len(shape_of(operation.operands[arrays])), numbers.index_vector_dim)
    scattered = [axis for axis in range(len(part)) if axis not in windows]
    places: dict[int, tuple[int | None, int]] = {}
    """For each axis of the target along which writing stays in place: the same axis of the places and of the updates."""
    batching = dict(zip(numbers.input_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    for axis, row in batching.items():
        places[axis] = row, scattered[rows.index(row)]
    kept = [axis for axis in range(len(whole)) if axis not in dropped and axis not in batching]
    for axis, window in zip(kept, windows, strict=True):
        if axis not in numbers.scattered_dims_to_operand_dims and whole[axis] == part[window]:
            places[axis] = None, window
    for axis, (row_of, window) in places.items():
        inner = next(state.inner for state in (target, index, update) if state)
        fits = (
            target in (None, Slots(axis, inner))
            and index in ((None,) if row_of is None else (None, Slots(row_of, inner)))
            and update in (None, Slots(window, inner))
        )
        if fits:
            return Slots(axis, inner)
    stop(operation, "it writes to computed places among the slots")


def _leading(last: Callable[[ir.Operation], int]) -> Callable[[ir.Operation, Sequence[State]], State]:
    """A rule for what works along so many last axes, once for each index of the others."""

    def rule(operation: ir.Operation, states: Sequence[State]) -> State:
        rank = len(shape_of(operation.operands[0]))
        return _keeps(operation, states, range(rank - last(operation), rank), "it works along the slots")

    return rule


RULES: Final[dict[str, Callable[[ir.Operation, Sequence[State]], State]]] = {
    "stablehlo.bitcast_convert": _bitcast,
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.cholesky": _leading(lambda _: 2),
    "stablehlo.concatenate": _concatenate,
    "stablehlo.convolution": _convolution,
    "stablehlo.custom_call": _custom_call,
    "stablehlo.dot_general": _dot,
    "stablehlo.dynamic_slice": _dynamic_slice,
    "stablehlo.dynamic_update_slice": _dynamic_update_slice,
    "stablehlo.fft": _leading(lambda operation: len(_ints(operation, "fft_length"))),
    "stablehlo.gather": _gather,
    "stablehlo.pad": _pad,
    "stablehlo.reduce": _reduce,
    "stablehlo.reduce_window": _reduce_window,
    "stablehlo.reverse": _reverse,
    "stablehlo.scatter": _scatter,
    "stablehlo.slice": _slice,
    "stablehlo.sort": _sort,
    "stablehlo.transpose": _transpose,
    "stablehlo.triangular_solve": _leading(lambda _: 2),
    "chlo.top_k": _top_k,
}


def stop(operation: ir.Operation, why: str) -> NoReturn:
    operands = ", ".join(str(value.type)[:48] for value in list(operation.operands)[:3])
    raise NotProvenError(f"{operation.name}({operands}): {why}")


def shape_of(value: ir.Value[ir.Type]) -> list[int]:
    return list(ir.RankedTensorType(value.type).shape)


def _ints(operation: ir.Operation, name: str) -> list[int]:
    return list(ir.DenseI64ArrayAttr(operation.attributes[name]))


def _elements(operation: ir.Operation, name: str) -> list[int]:
    elements = ir.DenseIntElementsAttr(operation.attributes[name])
    return [int(elements[index]) for index in range(len(elements))]


def _but(rank: int, axis: int) -> list[int]:
    return [each for each in range(rank) if each != axis]
