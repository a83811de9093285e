"""This machine as JAX sees it: its compile cache, and its memory for weights."""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from jax._src import lru_cache

from ...protocol.errors import Code, EngineError
from . import kernels
from .bundles import Bundle
from .kept import hashed, unhashed

UNPLANNED_MAX: Final = 32 * 256
"""See `compiler_options`."""


def configure(compile_cache: Path, *, beside: Path | None = None) -> None:
    """JAX compiles each program once, into `compile_cache`, if it is not `beside` already. Before anything runs.

    Kernels are taken from the place that only the machine's own processes write to.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the owner's own programs use the GPU too
    update: Callable[[str, object], None] = jax.config.update
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


def map_weights(bundle: Bundle) -> list[jax.Array]:
    """The parameters in the manifest's order; on a CPU they are the mapped file itself, shared by all its readers."""
    try:
        with (bundle.path / "weights.safetensors").open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        header_end = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:header_end])
        # By a thread of its own, while programs are loaded: the first run would wait for each page.
        threading.Thread(target=_touch, args=(mapped,), name="weights", daemon=True).start()
        return [jax.device_put(_tensor(mapped, header_end, header[name])) for name in bundle.manifest.parameters]
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise EngineError(Code.WORKER_FAILED, f"The weights of {bundle.manifest.name} cannot be read: {why}") from None


def _touch(mapped: mmap.mmap) -> None:
    np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].max()


def _tensor(mapped: mmap.mmap, base: int, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    begin, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    return np.frombuffer(mapped, dtype, (end - begin) // dtype.itemsize, base + begin).reshape(entry["shape"])


_DTYPES: Final = {"F32": "float32", "F16": "float16", "I32": "int32", "I8": "int8", "U8": "uint8"}
"""safetensors' names of the types that NumPy has too."""


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
