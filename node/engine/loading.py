"""A stranger's program from its bytes to something that can be run: admitted, compiled and run, each under its cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import jax
import numpy as np

from . import kernels
from .admission import Admitted, admit_untrusted, check_memory, needed_bytes
from .artifact import Aval, Signature, refuse
from .caps import Caps, Speed, measure_speed, memory_bytes
from .device import uncached
from .kept import Found, Kept
from .sharding import places_untrusted
from .slots import Isolation
from .watchdog import Limit


@dataclass(frozen=True, slots=True)
class Grant:
    """What a bundle may take of this machine, and who sees to it."""

    caps: Caps
    speed: Callable[[], Speed]
    """This machine's, which takes a moment to measure; `known_speed` mostly."""
    limit: Limit
    kept: Kept | None = None
    """Where compiled programs are looked for, and kept."""
    announced: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around the loading of each program: whoever has to know hears of it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program that may be run."""

    run: Callable[..., Any]  # (params, state, *inputs) -> (state, *outputs), done when it returns; state is given away
    isolation: Isolation
    """Whether jobs of different clients may share a run."""
    run_s_max: float
    places: Sequence[Any] = ()
    """Where each parameter has to lie, if it is for several devices."""


def load_untrusted(
    name: str,
    artifact: bytes,
    signature: Signature,
    *,
    flops: int,
    slots: int,
    grant: Grant,
    options: dict[str, str | bool] | None = None,
) -> Loaded:
    """The program of this name, admitted and compiled; see `admit_untrusted`. Raises `EngineError(bundle_refused)`.

    `options` are the compiler's; they follow from the signature, by which a kept program is found.

    Admission depends on the program, its signature and its manifest's claim: what is kept was admitted when it was compiled.
    """
    # [REJECT] It calls a kernel that this machine lacks.
    if jax.default_backend() == "cpu" and kernels.called_by(artifact) and not kernels.registered():
        refuse(kernels.MISSING)
    with grant.limit(f"reading and compiling {name}", grant.caps.compile_s):
        found, compiled = (grant.kept and grant.kept.find(artifact, signature, flops=flops)) or _compile_untrusted(
            artifact, signature, flops, slots, grant, options
        )
    check_memory(found.needed_bytes, grant.caps.memory_bytes)
    run_s_max = grant.caps.run_limit_s(found.work, grant.speed())
    places = compiled.input_shardings[0] if signature.devices > 1 else ()

    def run(params: Any, state: Any, *inputs: Any) -> Any:
        with grant.limit(f"a run of {name}", run_s_max):
            if places:  # a new state lies on one device, and another program may have left it otherwise
                state = [_placed(each, place) for each, place in zip(state, places[1], strict=True)]
            return _wait(compiled(params, state, *inputs))

    return Loaded(run, Isolation(found.isolated, found.reason), run_s_max, places[0] if places else ())


def _compile_untrusted(
    artifact: bytes,
    signature: Signature,
    flops: int,
    slots: int,
    grant: Grant,
    options: dict[str, str | bool] | None,
) -> tuple[Found, jax.stages.Compiled]:
    caps = grant.caps
    admitted = admit_untrusted(artifact, signature, flops=flops, memory_bytes=caps.memory_bytes, slots=slots)
    function = _function(admitted, signature)
    params, state = ([_spec(aval) for aval in avals] for avals in (signature.params, signature.state))
    try:
        lowered = function.lower(params, state, *map(_spec, signature.inputs))
        with uncached() if grant.kept else nullcontext():
            compiled = lowered.compile(compiler_options=options)
    except (RuntimeError, TypeError, ValueError) as error:  # what jax and XLA say of what they cannot compile
        refuse(f"it cannot be compiled: {str(error).partition(chr(10))[0][:200]}")
    isolation, needed = admitted.isolation, needed_bytes(compiled.memory_analysis())
    found = Found(isolation.proven, isolation.reason, needed, **asdict(admitted.work))
    if grant.kept:
        grant.kept.keep(artifact, signature, found, compiled, flops=flops)
    return found, compiled


def _function(admitted: Admitted, signature: Signature) -> jax.stages.Wrapped:
    """The program as jax compiles it, each argument and result in its place.

    Donation does not survive export, so it is said again: without it each step would copy the caches.
    """
    if not admitted.axes:
        return jax.jit(admitted.exported.call, donate_argnums=1)
    flat = places_untrusted(admitted.exported, admitted.axes)
    taken, given = (list(each) for each in flat)
    params, state = len(signature.params), len(signature.state)
    arguments = taken[:params], taken[params : params + state], *taken[params + state :]
    results = given[:state], *given[state:]
    return jax.jit(admitted.exported.call, donate_argnums=1, in_shardings=arguments, out_shardings=results)


def own_grant(kept: Kept | None = None) -> Grant:
    """For programs of one's own: all that a stranger's would get, and no limit on time."""
    return Grant(Caps(memory_bytes()), known_speed(kept), unlimited, kept)


def known_speed(kept: Kept | None) -> Callable[[], Speed]:
    """What is kept of this machine's speed; where nothing is, it is measured at the first call, and kept."""

    @cache
    def speed() -> Speed:
        known = kept.speed() if kept else None
        if known is None:
            known = measure_speed()
            if kept:
                kept.learn(known)
        return known

    return speed


def measured_again(kept: Kept) -> Iterator[None]:
    """The machine's speed was measured once more, and the better counts from the next worker on: when the first was taken,
    everything else of this machine may just have been starting, too."""
    kept.learn(measure_speed())
    yield


@contextmanager
def unlimited(doing: str, seconds: float) -> Iterator[None]:
    """The `Limit` of a publisher, who runs his own programs and can stop them himself."""
    yield


_wait: Callable[[Any], Any] = jax.block_until_ready  # untyped in jax 0.10


def _placed(array: jax.Array, place: jax.sharding.Sharding) -> jax.Array:
    return array if array.sharding.is_equivalent_to(place, array.ndim) else jax.device_put(array, place)


def _spec(aval: Aval) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, np.dtype(aval.dtype))  # type: ignore[no-untyped-call]  # untyped in jax 0.10
