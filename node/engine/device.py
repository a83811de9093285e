"""This machine as JAX sees it: its compile cache, and its memory for weights."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from jax._src import lru_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...protocol.bundle import Manifest
from ...protocol.errors import Code, EngineError
from . import kernels
from .artifact import refuse
from .bundles import Bundle
from .kept import hashed, unhashed
from .tensors import read_untrusted

UNPLANNED_MAX: Final = 32 * 256
"""See `compiler_options`."""

Array: TypeAlias = jax.Array | np.ndarray[Any, Any]


def configure(compile_cache: Path, *, beside: Path | None = None, devices: int = 1) -> None:
    """JAX compiles each program once, into `compile_cache`, if it is not `beside` already. Before anything runs.

    Kernels are taken from the place that only the machine's own processes write to. Where there is nothing but a CPU, it
    counts as so many `devices`, which share its cores and its memory.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the owner's own programs use the GPU too
    update: Callable[[str, object], None] = jax.config.update
    if devices > 1:  # JAX has one of itself, and takes no word on it once something ran
        update("jax_num_cpu_devices", devices)
    update("jax_compilation_cache_dir", str(compile_cache))
    update("jax_persistent_cache_min_compile_time_secs", 0.0)
    kernels.register(beside or compile_cache)
    # XLA's own caches would stand in the same directory, and its name then in every key: nothing could be shared.
    update("jax_persistent_cache_enable_xla_caches", "none")
    lru_cache.LRUCache.get = _reading(beside)  # type: ignore[assignment]
    lru_cache.LRUCache.put = _put_whole  # type: ignore[assignment]  # see there; its first argument is named otherwise


def compiler_options(role: str, length: int, context: int) -> dict[str, str | bool] | None:
    """What XLA is told of a program of this role, chunk length and context.

    On a CPU, jaxlib 0.10.2 gives products to YNNPACK, which plans each one anew in every process, at a program's first run:
    0.4 s for SmolLM2's `prefill`, beside 0.2 for the run. Chunks of 32 over 256 positions are as quick without it, or
    quicker; longer ones are slower (7 to 30 %), `decode` too, up to four times with a few slots; and what `call` gives is
    compared bit by bit.
    """
    unplanned = jax.default_backend() == "cpu" and role == "prefill" and length * context <= UNPLANNED_MAX
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if unplanned else None


@contextmanager
def uncached() -> Iterator[None]:
    """What is compiled in the block comes from the compiler, and leaves nothing in JAX's cache.

    An executable that was read from there cannot be serialised again: XLA's CPU back end of jaxlib 0.10.2 then leaves out
    functions, and says so when the copy is run ("Function ... not found").
    """
    get, put = lru_cache.LRUCache.get, lru_cache.LRUCache.put
    lru_cache.LRUCache.get = lambda cache, key: None  # type: ignore[assignment]
    lru_cache.LRUCache.put = lambda cache, key, value: None  # type: ignore[assignment]
    try:
        yield
    finally:
        lru_cache.LRUCache.get, lru_cache.LRUCache.put = get, put  # type: ignore[method-assign]


def close_cache() -> None:
    """What is compiled from now on leaves nothing in JAX's cache; what is there is found as before."""
    lru_cache.LRUCache.put = lambda cache, key, value: None  # type: ignore[assignment]


def introduce(manifests: Sequence[Manifest]) -> None:
    """The devices that these bundles lie over have exchanged something: the first time, GPUs' libraries open sockets for it.

    To be called before system calls are confined.
    """
    devices = jax.devices()[: max(manifest.devices or 1 for manifest in manifests)]
    if len(devices) > 1:
        mesh = Mesh(np.array(devices), ("all",))
        apart, whole = (NamedSharding(mesh, _axes(*each)) for each in (["all"], []))
        jax.device_get(jax.jit(lambda x: x.sum(), out_shardings=whole)(jax.device_put(np.ones(mesh.size), apart)))


class Weights:
    """A bundle's parameters, in the manifest's order: in place for one device, in the mapped file until `lie` for several."""

    def __init__(self, bundle: Bundle) -> None:
        sharded = bundle.manifest.devices is not None
        self.arrays: Sequence[Array] = list(_mapped(bundle)) if sharded else map_weights(bundle)
        self._places: Sequence[jax.sharding.Sharding] = ()

    def lie(self, places: Sequence[jax.sharding.Sharding]) -> None:
        """They lie so, if they are for several devices. Raises `EngineError(bundle_refused)` if they lie otherwise already."""
        if not places:
            return
        if not self._places:
            self._places, self.arrays = places, list(map(jax.device_put, self.arrays, places))
        pairs = zip(self.arrays, self._places, places, strict=True)
        # [REJECT] One program wants a parameter elsewhere than another: it would be there twice.
        if any(not place.is_equivalent_to(wanted, array.ndim) for array, place, wanted in pairs):
            refuse("it wants its parameters elsewhere than another program of the bundle")


def map_weights(bundle: Bundle) -> list[jax.Array]:
    """The parameters in the manifest's order; on a CPU they are the mapped file itself, shared by all its readers."""
    return list(map(jax.device_put, _mapped(bundle)))


def _mapped(bundle: Bundle) -> Sequence[np.ndarray[Any, Any]]:
    try:
        with (bundle.path / "weights.safetensors").open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        tensors = read_untrusted(mapped, bundle.manifest.parameters)
        # By a thread of its own, while programs are loaded: the first run would wait for each page.
        threading.Thread(target=_touch, args=(mapped,), name="weights", daemon=True).start()
        return tensors
    except (ValueError, MemoryError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise EngineError(Code.WORKER_FAILED, f"The weights of {bundle.manifest.name} cannot be read: {why}") from None


def _touch(mapped: mmap.mmap) -> None:
    np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].max()


_axes: Callable[..., PartitionSpec] = PartitionSpec  # untyped in jax 0.10
_get_from_cache: Final = lru_cache.LRUCache.get


def _reading(beside: Path | None) -> Callable[[lru_cache.LRUCache, str], bytes | None]:
    """`LRUCache.get` of what `_put_whole` put, with a second place to look in, which is only read.

    What a disk has damaged is not there: the native code that reads it would die of it.
    """

    def get(cache: lru_cache.LRUCache, key: str) -> bytes | None:
        stored = _get_from_cache(cache, key)
        if stored is not None:
            with suppress(ValueError):
                return unhashed(stored)
        if beside is not None:
            with suppress(FileNotFoundError, ValueError):
                return unhashed((beside / f"{key}-cache").read_bytes())
        return None

    return get


def _put_whole(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """An entry appears in the compile cache whole or not at all.

    jax 0.10.2 (`_src/lru_cache.py`, `LRUCache.put`) writes in place, never over what is there: a worker killed while
    it writes, as any may be, would leave a torn entry that every later start fails to read, and then compiles anew.
    """
    target = cache.path / f"{key}-cache"
    scratch = target.with_name(f".{key[:64]}.{token_hex(4)}")  # in a sandbox every worker is process 1
    scratch.write_bytes(hashed(value))
    scratch.replace(target)
