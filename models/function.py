"""A publisher's own JAX function as a bundle: `bundle(fn, params, example_inputs, name=..., licence=...)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from numpy.typing import NDArray

from ..node.engine.bundles import Bundle, BundleStore
from ..protocol.bundle import CALL, Tensor, Tolerance
from ..protocol.limits import DEVICES_MAX
from .builder import install
from .layout import Layout
from .measure import Inputs, distances, random_inputs
from .program import Draft, Shapes, State, specimen
from .publish import default_store
from .recipe import Model, Progress
from .traced import check_programs, outputs_of, unsupported

Arrays: TypeAlias = Sequence[Any] | Mapping[str, Any]

INPUT_DTYPES: Final = frozenset({"float32", "float16", "int8", "int16", "int32", "uint8", "uint16", "uint32"})
SAMPLES: Final = 32
"""Random inputs, where no others are given: a cheat that passes one time in ten is told from one that never does."""
FALSE_ACCEPT_PPM_MAX: Final = 100_000
"""A tolerance that lets a cheat pass more often than one time in ten tells nothing of it."""


def bundle(
    fn: Callable[..., Any],
    params: Any,
    example_inputs: Arrays,
    *,
    name: str,
    licence: str,
    provenance: str = "",
    store: BundleStore | None = None,
    slots: Sequence[int] = (1, 8),
    output_names: Sequence[str] | None = None,
    samples: Sequence[Arrays] | None = None,
    tolerance_ppm: int | None = None,
    devices: int = 1,
    divided: Mapping[str, int] | None = None,
    on_progress: Progress | None = None,
) -> Bundle:
    """`fn` is a bundle on this machine, signed by its publisher key and trusted here: `.cid` names it everywhere.

        def judge(params, image): ...                 # one image, no batch dimension
        made = bundle(judge, params, [image], name="judge", licence="Apache-2.0")

    `fn(params, *inputs)` is written for one input, of fixed shapes, in `jax.numpy`, and gives an array, or a tuple or dict
    of arrays; it is run over `slots` of them side by side, with float32's highest precision wherever it leaves that open.
    `params` is any pytree of arrays; in the bundle they are float32, and `fn` sees them in their own types.
    `example_inputs` are arrays in the order of `fn`'s parameters, or by name; only their shapes and types matter, and the
    range of the numbers in them. Outputs become one row of float32, named by their keys or `output_names`.

    The tolerance is ten times the largest honest difference on `samples` (32 random inputs, unless given), and is held
    against weights rounded to bfloat16 and int8; `tolerance_ppm` sets another, whatever it then lets pass. `store` is this
    user's.

    With `devices`, it lies over so many accelerators of one machine: each has an equal share of the parameters that
    `divided` names (`{"layers.0.w": 1}`: by the path in `params`, with the dimension to divide), and all of the others.

    Raises `EngineError`: `unsupported_model`, in one sentence, for what cannot be a bundle; `worker_failed` if this machine
    cannot run it. `OSError` if the disk is full.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]  # added at run time
        raise unsupported("Bundles compute in 32 bits: turn jax_enable_x64 off before tracing anything")
    if not licence.strip():
        raise unsupported("Nobody may run what has no licence: say `licence`, as an SPDX expression")
    leaves = _leaves(params)
    function = _Function(fn, leaves, tree_util.tree_structure(params), *_inputs(fn, example_inputs))
    model = replace(_model(function, sorted({1, *slots}), output_names), licence=licence, provenance=provenance)
    model = replace(model, layout=_layout(model.parameters, devices, divided or {}))
    check_programs(model)
    rows = [_row(function, each) for each in samples or ()] or random_inputs(model.inputs, function.examples, SAMPLES)
    model = replace(model, tolerance=_tolerance(model, rows, tolerance_ppm))
    return install(name, model, store or default_store(), on_progress)


@dataclass(frozen=True)
class _Function:
    """What a publisher gave, in our words."""

    fn: Callable[..., Any]
    leaves: Mapping[str, NDArray[Any]]
    tree: Any
    names: tuple[str, ...]
    examples: Inputs
    by_name: bool

    def one(self, leaves: Sequence[Any], *arrays: Any) -> Any:
        """`fn` itself, its parameters in their own types."""
        own = [jnp.asarray(leaf, like.dtype) for leaf, like in zip(leaves, self.leaves.values(), strict=True)]
        params = tree_util.tree_unflatten(self.tree, own)
        with jax.default_matmul_precision("highest"):
            if self.by_name:
                return self.fn(params, **dict(zip(self.names, arrays, strict=True)))
            return self.fn(params, *arrays)

    def call(self, leaves: list[Any], nothing: State, *inputs: Any) -> tuple[State, Any]:
        """In the calling convention: every slot's outputs in one row."""

        def row(*arrays: Any) -> Any:
            outputs = tree_util.tree_leaves(self.one(leaves, *arrays))
            return jnp.concatenate([jnp.ravel(output).astype(jnp.float32) for output in outputs])

        return nothing, jax.vmap(row)(*inputs)


def _leaves(params: Any) -> dict[str, NDArray[Any]]:
    leaves: dict[str, NDArray[Any]] = {}
    for path, leaf in tree_util.tree_flatten_with_path(params)[0]:
        name = tree_util.keystr(path, simple=True, separator=".") or "params"
        if name in leaves or name.startswith(("padding.", "__metadata__")):
            raise unsupported(f"`params` has a leaf whose name is taken, {name!r}: call it something else")
        leaves[name] = _array(f"`params` at {name!r}", leaf)
        exact = leaves[name].astype(np.float32).astype(leaves[name].dtype)
        if not np.array_equal(exact, leaves[name], equal_nan=leaves[name].dtype.kind not in "iub"):
            raise unsupported(f"`params` at {name!r} holds integers that float32, in which bundles keep them, does not")
    return leaves


def _inputs(fn: Callable[..., Any], examples: Arrays) -> tuple[tuple[str, ...], Inputs, bool]:
    """Names, arrays, and whether `fn` takes them by name."""
    if isinstance(examples, Mapping):
        names, by_name = tuple(examples), True
    else:
        names, by_name = tuple(_parameter_names(fn, len(examples))), False
    given = examples.values() if isinstance(examples, Mapping) else examples
    arrays = tuple(_array(f"Input {name!r}", each) for name, each in zip(names, given, strict=True))
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.name not in INPUT_DTYPES:
            raise unsupported(f"Input {name!r} is {array.dtype}: give one of {', '.join(sorted(INPUT_DTYPES))}")
    if not arrays:
        raise unsupported("A function of nothing has one answer: give it at least one input")
    return names, arrays, by_name


def _parameter_names(fn: Callable[..., Any], count: int) -> Iterator[str]:
    """Those after the first that take a value by position; numbered where the signature names none."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())[1:]
    except (TypeError, ValueError):
        parameters = []
    for index in range(count):
        named = index < len(parameters) and parameters[index].kind is not inspect.Parameter.VAR_POSITIONAL
        yield parameters[index].name if named else f"input{index}"


def _array(what: str, value: Any) -> NDArray[Any]:
    """In the type that JAX would give it."""
    try:
        array = np.asarray(value)
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    except (TypeError, ValueError):
        raise unsupported(f"{what} is no array of numbers but {type(value).__name__}") from None
    if not (np.issubdtype(dtype, np.number) or dtype.name in ("bool", "bfloat16")) or dtype.kind == "c":
        raise unsupported(f"{what} is of type {array.dtype}: neither floats nor integers")
    return array.astype(dtype)


def _row(function: _Function, sample: Arrays) -> Inputs:
    if isinstance(sample, Mapping) and set(sample) != set(function.names):
        raise unsupported(f"A sample has other inputs than {', '.join(function.names)}")
    given = [sample[name] for name in function.names] if isinstance(sample, Mapping) else list(sample)
    arrays = tuple(_array("A sample", each) for each in given)
    if [each.shape for each in arrays] != [each.shape for each in function.examples]:
        raise unsupported("A sample has other shapes than the example inputs: a bundle's shapes are fixed")
    return tuple(each.astype(like.dtype) for each, like in zip(arrays, function.examples, strict=True))


def _model(function: _Function, slots: Sequence[int], output_names: Sequence[str] | None) -> Model:
    inputs = tuple(Tensor(n, a.dtype.name, a.shape) for n, a in zip(function.names, function.examples, strict=True))
    drafts = tuple(
        Draft(f"call-{b}", CALL, b, 1, 1, function.call, tuple(specimen((b, *t.shape), t.dtype) for t in inputs))
        for b in slots
    )
    leaves = [specimen(leaf.shape, "float32") for leaf in function.leaves.values()]
    arrays = [specimen(tensor.shape, tensor.dtype) for tensor in inputs]
    return Model(
        family="function",
        licence="",
        provenance="",
        entries=(CALL,),
        parameters={name: leaf.shape for name, leaf in function.leaves.items()},
        weights={name: leaf.astype(np.float32) for name, leaf in function.leaves.items()},
        state=(),
        inputs=inputs,
        outputs=outputs_of(function.one, [leaves, *arrays], output_names),
        programs=drafts,
        tokenizer=None,
        chat_template=None,
        context=1,
        end_tokens=(),
        tolerance=Tolerance(0, 0, 0, 0, 0, (), ""),
    )


def _layout(parameters: Shapes, devices: int, divided: Mapping[str, int]) -> Layout:
    if not 1 <= devices <= DEVICES_MAX:
        raise unsupported(f"`devices` is a number from 1 to {DEVICES_MAX}")
    for name, axis in divided.items():
        if name not in parameters:
            raise unsupported(f"`divided` names {name!r}; `params` has {', '.join(parameters)[:200]}")
        shape = parameters[name]
        if not 0 <= axis < len(shape) or shape[axis] % devices:
            raise unsupported(f"{name!r} of shape {list(shape)} does not divide by {devices} along dimension {axis}")
    return Layout(devices, divided)


def _tolerance(model: Model, rows: Sequence[Inputs], tolerance_ppm: int | None) -> Tolerance:
    try:
        tolerance = distances(model, rows).tolerance(tolerance_ppm)
    except ValueError as error:
        raise unsupported(f"`fn` cannot be checked on these samples: {error}") from None
    passing = [cheat for cheat in tolerance.cheats if cheat.false_accept_ppm > FALSE_ACCEPT_PPM_MAX]
    if passing and tolerance_ppm is None:
        share = f"{passing[0].name} pass {passing[0].false_accept_ppm / 1e4:.0f} % of checks"
        raise unsupported(
            f"A tolerance of {tolerance.value_micro} ppm, which honest runs need, does not tell them from cheats ({share}):"
            " give outputs that show more of what is computed, `samples` like real inputs, or say `tolerance_ppm`"
        )
    return tolerance
