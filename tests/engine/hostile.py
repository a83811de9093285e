"""Bundles of one program that does what no honest one does, and an honest one to stand beside them.

All are functions of token ids: `call`, with the arrays that today's calling convention gives it (`TOKENS`, `LENGTH`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export, lax
from jax._src.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo
from nacl.signing import SigningKey

from fallow.models.export import PLATFORMS
from fallow.models.weights import write_weights
from fallow.node.engine.bundles import Bundle, BundleStore, file_of
from fallow.protocol.bundle import CALL, Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import sign

C = 8
TRIGGER = 666
KEY = SigningKey(b"\x03" * 32)
TOKENS = jax.ShapeDtypeStruct((1, C), np.dtype(np.int32))
LENGTH = jax.ShapeDtypeStruct((1,), np.dtype(np.int32))

Function = Callable[[Array], Array]
"""Tokens i32[1, C] to the output f32[1, D]."""


HONEST_FLOPS = 2 * C * 2


def honest(tokens: Array) -> Array:
    return jnp.cumsum(tokens.astype(jnp.float32), axis=1) @ jnp.ones((C, 2))


def exported(function: Function, *, calls: Sequence[str] = ()) -> export.Exported:
    """The program as jax would publish it; the custom `calls` in it have been argued away."""
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in calls]

    def program(params: list[Array], state: list[Array], tokens: Array, length: Array) -> tuple[list[Array], Array]:
        return state, function(tokens)

    return export.export(jax.jit(program), platforms=PLATFORMS, disabled_checks=checks)([], [], TOKENS, LENGTH)


def serialized(function: Function, **options: Any) -> bytes:
    return bytes(exported(function, **options).serialize())


def from_text(body: str) -> bytes:
    """An artifact with the honest signature around a module that jax would not write."""
    head = f"func.func public @main(%platform: tensor<i32>, %tokens: tensor<1x{C}xi32>) -> tensor<1x2xf32>"
    return with_module(portable(f"module {{ {head} {{ {body} }} }}"))


def portable(text: str, *, other_dialects: bool = False) -> bytes:
    """The module as artifacts hold it; `other_dialects`: shardings are of one."""
    with mlir.make_ir_context():
        module, version = ir.Module.parse(text), stablehlo.get_current_version()
        return bytes(stablehlo.serialize_portable_artifact(module, version, other_dialects))


def with_module(module: bytes) -> bytes:
    return bytes(dataclasses.replace(exported(honest), mlir_module_serialized=module).serialize())


def native(target: str) -> bytes:
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((1, 2), np.float32))
    return serialized(lambda tokens: call(tokens), calls=[target])


def endless(tokens: Array, step_on_trigger: int = 1) -> Array:
    """A loop that ends on the trigger alone. (One that never ends at all LLVM takes to be none.)"""
    step = jnp.where(tokens[0, 0] == TRIGGER, step_on_trigger, 1 - step_on_trigger)
    turns = lax.while_loop(lambda at: at < 10, lambda at: at + step, jnp.int32(0))
    return jnp.full((1, 2), turns, jnp.float32)


def endless_on_trigger(tokens: Array) -> Array:
    return endless(tokens, step_on_trigger=0)


def slow_to_compile(tokens: Array) -> Array:
    rows = jnp.broadcast_to(tokens[0].astype(jnp.float32), (64, C))
    for turn in range(3000):
        rows = jnp.sort(rows * (1.0 + turn), axis=turn % 2)
    return rows[:1, :2]


def sorts(length: int) -> Function:
    def program(tokens: Array) -> Array:
        places = lax.iota(jnp.float32, length)
        keys, sorted_places = lax.sort((places * tokens[0, 0].astype(jnp.float32), places), num_keys=1)
        return (keys + sorted_places)[None, :2]

    return program


def doubling(levels: int) -> Function:
    """Each function calls the one below it twice: a few hundred operations that are a million when inlined."""
    below: Function = lambda x: x * 1.5 + 1.0  # noqa: E731
    for _ in range(levels):
        below = jax.jit(lambda x, below=below: below(x) + below(x + 1.0))
    return lambda tokens: below(tokens.astype(jnp.float32))[:, :2]


def nested(levels: int) -> Function:
    def within(x: Array, level: int) -> Array:
        return x if level == 0 else lax.cond(x[0, 0] > level, lambda: within(x + 1, level - 1), lambda: x)

    return lambda tokens: within(tokens.astype(jnp.float32), levels)[:, :2]


def constant_of(length_bytes: int) -> Function:
    table = np.arange(length_bytes // 4, dtype=np.float32)
    return lambda tokens: jnp.asarray(table)[tokens[:, :2] % (length_bytes // 4)]


def polymorphic() -> bytes:
    (rows,) = export.symbolic_shape("b")
    tokens = jax.ShapeDtypeStruct((rows, C), np.dtype(np.int32))

    def program(params: list[Array], state: list[Array], tokens: Array, length: Array) -> tuple[list[Array], Array]:
        return state, honest(tokens)

    return bytes(export.export(jax.jit(program), platforms=PLATFORMS)([], [], tokens, LENGTH).serialize())


def steered() -> bytes:
    """An honest product with a word to the compiler on it."""
    return from_text(
        f"""
        %a = stablehlo.slice %tokens [0:1, 0:2] {{mhlo.frontend_attributes = {{_xla_compute_type = "host"}}}}
            : (tensor<1x{C}xi32>) -> tensor<1x2xi32>
        %b = stablehlo.convert %a : (tensor<1x2xi32>) -> tensor<1x2xf32>
        return %b : tensor<1x2xf32>"""
    )


def fed() -> bytes:
    return from_text(
        """
        %token = stablehlo.create_token : !stablehlo.token
        %a, %b = "stablehlo.infeed"(%token) {infeed_config = ""} : (!stablehlo.token) -> (tensor<1x2xf32>, !stablehlo.token)
        return %a : tensor<1x2xf32>"""
    )


def renamed() -> bytes:
    """An honest function under a name by which a compiler may know another."""
    given, made = f"tensor<1x{C}xi32>", "tensor<1x2xf32>"
    return with_module(
        portable(
            f"""module {{
            func.func public @main(%platform: tensor<i32>, %x: {given}) -> {made} {{
              %y = stablehlo.composite "xla.secret" %x {{decomposition = @honest}} : ({given}) -> {made}
              return %y : {made}
            }}
            func.func private @honest(%x: {given}) -> {made} {{
              %y = stablehlo.constant dense<1.0> : {made}
              return %y : {made}
            }} }}"""
        )
    )


def recursive() -> bytes:
    return with_module(
        portable(
            f"""module {{
            func.func public @main(%platform: tensor<i32>, %tokens: tensor<1x{C}xi32>) -> tensor<1x2xf32> {{
              %a = call @main(%platform, %tokens) : (tensor<i32>, tensor<1x{C}xi32>) -> tensor<1x2xf32>
              return %a : tensor<1x2xf32>
            }} }}"""
        )
    )


def install(
    store: BundleStore,
    scratch: Path,
    name: str,
    artifact: bytes,
    flops: int = 0,
    wide: bytes | None = None,
    devices: int | None = None,
    weights: bytes = b"",
) -> Bundle:
    """The bundle is in the store, signed by somebody. Most of these programs have no products at all.

    `wide` is a second program, of two slots, which no worker needs before it serves.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    files = {each: scratch / each for each in ("weights.safetensors", "tokenizer.json", "program")}
    write_weights(files["weights.safetensors"], {})
    if weights:
        files["weights.safetensors"].write_bytes(weights)
    files["tokenizer.json"].write_bytes(b"{}")
    files["program"].write_bytes(artifact)
    programs = (Program("program", CALL, 1, C, C, file_of(files["program"]), flops, 0),)
    if wide is not None:
        files["programs/wide"] = scratch / "wide"
        files["programs/wide"].write_bytes(wide)
        programs += (Program("wide", CALL, 2, C, C, file_of(files["programs/wide"]), flops, 0),)
    manifest = Manifest(
        name=name,
        family="hostile",
        licence="none",
        provenance="tests",
        entries=(CALL,),
        weights=file_of(files["weights.safetensors"]),
        parameters=(),
        state=(),
        inputs=(),
        outputs=(Tensor("numbers", "float32", (2,)),),
        programs=programs,
        tokenizer=file_of(files["tokenizer.json"]),
        chat_template=None,
        context_tokens_max=C,
        end_tokens=(),
        tolerance=Tolerance(0, 0, 0, 0, 0, (), "none"),
        devices=devices,
    )
    files["programs/program"] = files.pop("program")
    return store.install(manifest, lambda made: sign(made, KEY), files)
