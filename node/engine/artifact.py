"""A publisher's program as it is read: its `jax.export` artifact, opened, and its signature held against the convention.

What is in the module is `admission`'s business. Everything here meets a stranger's bytes, and Python's and MLIR's readers of
them were not written for that: so it runs in the worker, under a limit on time (`watchdog`), and a worker that dies of
it has said before which bundle it was loading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jax
from jax import export
from jaxlib.mlir import ir

from ...protocol.errors import Code, EngineError
from ...protocol.limits import PROGRAM_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Aval:
    """An array that a program takes or gives: element type in NumPy's words, and shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """What the calling convention demands of `state, *outputs = program(params, state, *inputs)`."""

    params: tuple[Aval, ...]
    state: tuple[Aval, ...]
    inputs: tuple[Aval, ...]
    outputs: tuple[Aval, ...]
    devices: int = 1
    """Over which it lies. Its arrays are whole all the same."""

    @property
    def taken(self) -> tuple[Aval, ...]:
        """All arguments, flat."""
        return self.params + self.state + self.inputs

    @property
    def given(self) -> tuple[Aval, ...]:
        """All results, flat."""
        return self.state + self.outputs


@dataclass(frozen=True, slots=True)
class Artifact:
    """An opened artifact that keeps the convention. Its module may still hold anything."""

    exported: export.Exported
    signature: Signature
    module: ir.Module
    """StableHLO, exactly what `exported.call` would compile; verified by MLIR when it was read."""

    functions: Mapping[str, ir.Block]
    """The bodies of its functions by name. `main` is the program's."""

    @property
    def places(self) -> tuple[int | None, ...]:
        """For each argument of `main` its index in `signature.taken`; None for the platform's number."""
        return (None,) * _extra(self.exported) + tuple(self.exported.module_kept_var_idx)


def refuse(message: str) -> NoReturn:
    """Raises the one error of everything that a node demands of a bundle's programs."""
    raise EngineError(Code.BUNDLE_REFUSED, message)


def read_untrusted(artifact: bytes, signature: Signature) -> Artifact:
    """The artifact, opened, with this signature, for this machine's platform. Nothing has been compiled.

    Raises `EngineError(bundle_refused)`, or one of `BROKEN` for bytes that are no artifact. Bytes that break MLIR's reader,
    which is native code, end the process, or keep it busy until the watchdog ends it.
    """
    # [REJECT] The artifact is longer than any that carries no weights.
    if len(artifact) > PROGRAM_BYTES_MAX:
        refuse(f"its artifact has more than {PROGRAM_BYTES_MAX} bytes")
    exported = export.deserialize(bytearray(artifact))
    _check(exported, signature)
    with context():
        module: ir.Module = exported.mlir_module(serialized=False)
    opened = Artifact(exported, signature, module, functions_of(module))
    _check_main(opened)
    return opened


def functions_of(module: ir.Module) -> dict[str, ir.Block]:
    """The bodies of its functions by name. Raises `EngineError(bundle_refused)` if it holds anything else."""
    return dict(_named_bodies(module))


def callee(operation: ir.Operation) -> str | None:
    """The function that it calls, if it is a call."""
    attribute = {"func.call": "callee", "stablehlo.composite": "decomposition"}.get(operation.name)
    return ir.FlatSymbolRefAttr(operation.attributes[attribute]).value if attribute else None


def context() -> ir.Context:
    """An MLIR context that knows the dialects of exported programs; to be entered by `with`."""
    from jax._src.interpreters import mlir  # the only maker of one; jax.interpreters.mlir does not show it

    made: ir.Context = mlir.make_ir_context()
    return made


def _check(exported: export.Exported, signature: Signature) -> None:
    # [REJECT] It is not for this platform.
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if platform not in exported.platforms:
        refuse(f"it was exported for {', '.join(exported.platforms)[:64]}, not for {platform}")
    # [REJECT] It is for another number of devices, or has effects: tokens, debugging output, callbacks.
    if exported.nr_devices != signature.devices:
        refuse(f"it was exported for {exported.nr_devices} devices, its manifest says {signature.devices}")
    if exported.ordered_effects or exported.unordered_effects:
        refuse("it has effects other than its results")
    # [REJECT] It takes or gives other arrays than the convention says.
    _check_avals("takes", exported.in_avals, signature.taken)
    _check_avals("gives", exported.out_avals, signature.given)
    holders = [0] * len(signature.params), [0] * len(signature.state)
    inputs, outputs = [0] * len(signature.inputs), [0] * len(signature.outputs)
    taken: object = exported.in_tree
    if taken != jax.tree.structure(((*holders, *inputs), {})):
        refuse("its arguments are not (params, state, *inputs)")
    given: object = exported.out_tree
    if given != jax.tree.structure((holders[1], *outputs)):
        refuse("its results are not (state, *outputs)")


def _check_avals(verb: str, found: Sequence[Any], wanted: Sequence[Aval]) -> None:
    if len(found) != len(wanted):
        refuse(f"it {verb} {len(found)} arrays, the convention says {len(wanted)}")
    for index, (aval, expected) in enumerate(zip(found, wanted, strict=True)):
        shape = tuple(aval.shape)
        if (
            not all(type(length) is int for length in shape)
            or shape != expected.shape
            or aval.dtype.name != expected.dtype
        ):
            refuse(f"as array {index} it {verb} {str(aval)[:64]}, the convention says {expected}")


def _check_main(artifact: Artifact) -> None:
    """The module's own types are those of the signature, of which `exported` only claims something."""
    exported = artifact.exported
    # [REJECT] The module's function is not the one that the artifact describes.
    if "main" not in artifact.functions:
        refuse("its module has no function main")
    kept = tuple(exported.module_kept_var_idx)
    if list(kept) != sorted(set(kept)) or not set(kept) <= set(range(len(exported.in_avals))):
        refuse("its artifact says nonsense about which arguments are used")
    avals = [exported.in_avals[place] for place in kept]
    wanted = ["tensor<i32>"] * _extra(exported) + [_type_of(aval.dtype.name, aval.shape) for aval in avals]
    main = artifact.functions["main"]
    found = [str(argument.type) for argument in main.arguments]
    if found != wanted:
        refuse("its module's arguments are not those that its artifact describes")
    results = [str(value.type) for value in main.operations[len(main.operations) - 1].operands]
    if results != [_type_of(aval.dtype.name, aval.shape) for aval in exported.out_avals]:
        refuse("its module's results are not those that its artifact describes")


def _extra(exported: export.Exported) -> int:
    """Arguments before the program's own: the platform's number, if there are several."""
    return 1 if len(exported.platforms) > 1 else 0


def _named_bodies(module: ir.Module) -> Iterator[tuple[str, ir.Block]]:
    for view in module.body.operations:
        operation = view.operation
        if operation.name == "sdy.mesh":  # which `sharding` looks at
            continue
        # [REJECT] The module holds something other than functions with one block each.
        if operation.name != "func.func" or len(operation.regions[0].blocks) != 1:
            refuse(f"its module holds {operation.name}, or a function that is not one block")
        yield ir.StringAttr(operation.attributes["sym_name"]).value, operation.regions[0].blocks[0]


def _type_of(dtype: str, shape: Sequence[int]) -> str:
    element = _ELEMENTS.get(dtype, "?")
    return f"tensor<{''.join(f'{length}x' for length in shape)}{element}>"


_ELEMENTS: Final = {
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"ui{bits}" for bits in (8, 16, 32, 64)},
    "bool": "i1",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
    "complex64": "complex<f32>",
    "complex128": "complex<f64>",
}
"""NumPy's words in MLIR's."""

BROKEN: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, StopIteration, TypeError,
    ValueError, ir.MLIRError, struct.error,
)  # fmt: skip
"""What the readers of flatbuffers and of MLIR raise over altered bytes, by kind: they were not made for a stranger's."""
