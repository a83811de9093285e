"""This machine as JAX sees it: its compile cache, its memory for weights, and the class of its arithmetic."""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from blake3 import blake3
from jax._src import lru_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib.version import __version__ as jaxlib_version

from ...protocol.bundle import Manifest
from ...protocol.errors import Code, EngineError
from . import kernels
from .artifact import refuse
from .bundles import Bundle
from .kept import hashed, unhashed

Array: TypeAlias = jax.Array | np.ndarray[Any, Any]


def configure(compile_cache: Path, *, beside: Path | None = None, devices: int = 1) -> None:
    """JAX compiles each program once, into `compile_cache`, if it is not `beside` already. Before anything runs.

    Kernels are taken from the place that only the machine's own processes write to. Where there is nothing but a CPU, it
    counts as so many `devices`, which share its cores and its memory.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the owner's own programs use the GPU too
    update: Callable[[str, object], None] = jax.config.update
    update("jax_num_cpu_devices", devices)
    update("jax_compilation_cache_dir", str(compile_cache))
    update("jax_persistent_cache_min_compile_time_secs", 0.0)
    kernels.register(beside or compile_cache)
    # XLA's own caches would stand in the same directory, and its name then in every key: nothing could be shared.
    update("jax_persistent_cache_enable_xla_caches", "none")
    lru_cache.LRUCache.get = _reading(beside)  # type: ignore[assignment]
    lru_cache.LRUCache.put = _put_whole  # type: ignore[assignment]  # see there; its first argument is named otherwise


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


def _mapped(bundle: Bundle) -> Iterator[np.ndarray[Any, Any]]:
    try:
        with (bundle.path / "weights.safetensors").open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        header_end = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:header_end])
        # By a thread of its own, while programs are loaded: the first run would wait for each page.
        threading.Thread(target=_touch, args=(mapped,), name="weights", daemon=True).start()
        yield from [_tensor(mapped, header_end, header[name]) for name in bundle.manifest.parameters]
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise EngineError(Code.WORKER_FAILED, f"The weights of {bundle.manifest.name} cannot be read: {why}") from None


def _touch(mapped: mmap.mmap) -> None:
    np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].max()


def numerics_class(params: Sequence[Array], manifest: Manifest) -> str:
    """Where results are bit-equal: precision/jaxlib version/platform/instruction set or device kind/variant(/flags).

    `2xavx512`, say, are two devices over which each program lies: sums are split among them.
    The variant is how many slots a program may have had: where there are several, the load chooses, and nothing is bit-equal.
    """
    precision = "+".join(sorted({param.dtype.name for param in params})) or "float32"
    device = jax.devices()[0]
    kind = _instruction_set() if device.platform == "cpu" else device.device_kind.replace(" ", "-")
    kind = f"{manifest.devices}x{kind}" if manifest.devices else kind
    variant = "b" + "+".join(map(str, sorted({program.slots for program in manifest.programs})))
    flags = os.environ.get("XLA_FLAGS", "")
    flagged = f"/{blake3(flags.encode()).hexdigest(4)}" if flags else ""
    return f"{precision}/jaxlib-{jaxlib_version}/{device.platform}/{kind}/{variant}{flagged}"


def _tensor(mapped: mmap.mmap, base: int, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    begin, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    return np.frombuffer(mapped, dtype, (end - begin) // dtype.itemsize, base + begin).reshape(entry["shape"])


_DTYPES: Final = {"F32": "float32", "F16": "float16", "I32": "int32", "I8": "int8", "U8": "uint8"}
"""safetensors' names of the types that NumPy has too."""


def _instruction_set() -> str:
    """The widest vectors that XLA compiles for here, by which its sums are ordered."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        words = set()
    widest = (name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2"), ("avx", "avx")) if flag in words)
    return next(widest, os.uname().machine)


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
    scratch = target.with_name(f".{key[:64]}.{os.getpid()}")
    scratch.write_bytes(hashed(value))
    scratch.replace(target)
