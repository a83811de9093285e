"""The native code that programs may call by name: products with weights in blocks (`blocks.cc`), for CPUs.

It is compiled once per machine, for that machine, by whoever starts workers, and lies where compiled programs lie; a worker
only loads it. What each name computes stands in `spec/07-bundles.md`; on other devices programs do without.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from blake3 import blake3

from ...protocol.errors import Code, EngineError
from .bundles import Bundle
from .processor import features

PRODUCT: Final = "fallow_block_product_1"
TARGETS: Final = frozenset({PRODUCT})
"""Custom calls by name. What a name computes never changes: something else gets another number."""

COMPILE_S_MAX: Final = 120
"""Five seconds, on two busy cores."""

MISSING: Final = (
    "it has weights in blocks, and the code that reads them is not on this machine: install a C++ compiler (g++ or"
    " clang++, or name one in CXX) and start again"
)

_SOURCE: Final = Path(__file__).with_name("blocks.cc")
_COMPILERS: Final = ("c++", "g++", "clang++")
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-w")


def build(directory: Path, options: Sequence[str] = ()) -> Path:
    """The library for this machine is in `directory`, compiled if it was not there; returns its path.

    `options` go to the compiler after ours: they make another library, of the same results. Raises
    `EngineError(worker_failed)` if there is no compiler, or it fails: then bundles with weights in blocks do not run here.
    """
    library = directory / _name(options)
    if library.exists():
        return library
    names = (os.environ.get("CXX"), *_COMPILERS)
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        raise EngineError(
            Code.WORKER_FAILED, f"No C++ compiler was found ({', '.join(_COMPILERS)}, or one named in CXX)."
        )
    scratch = library.with_name(f".{library.name}.{os.getpid()}")
    words = [compiler, *_FLAGS, *options, "-isystem", str(_headers()), str(_SOURCE), "-o", str(scratch)]
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=COMPILE_S_MAX)
        if run.returncode != 0:
            why = next((line for line in run.stderr.splitlines() if "error" in line), f"exit code {run.returncode}")
            raise EngineError(Code.WORKER_FAILED, f"{compiler} cannot compile {_SOURCE.name}: {why[:200]}")
        scratch.replace(library)
    except subprocess.TimeoutExpired:
        raise EngineError(
            Code.WORKER_FAILED, f"{compiler} did not compile {_SOURCE.name} in {COMPILE_S_MAX} s."
        ) from None
    finally:
        scratch.unlink(missing_ok=True)
    return library


def prepare(bundle: Bundle, directory: Path) -> None:
    """As `build`, if a program of the bundle calls the library. Raises `EngineError(worker_failed)` as that does."""
    if any(called_by((bundle.path / "programs" / program.name).read_bytes()) for program in bundle.manifest.programs):
        build(directory)


def called_by(artifact: bytes | bytearray) -> bool:
    """Whether a program may call the library: names stand in an artifact as they are."""
    return any(name.encode() in artifact for name in TARGETS)


def registered() -> bool:
    """Whether this process's programs may call the library."""
    return bool(_registered)


def register(directory: Path, options: Sequence[str] = ()) -> bool:
    """Programs on this process's CPU may call `TARGETS`, if the library for this machine is in `directory`, and sound."""
    library = directory / _name(options)
    if not library.exists():
        return False
    if not _registered:  # JAX takes each name once in a process
        import jax  # only here: whoever compiles the library does without

        try:
            loaded = ctypes.CDLL(str(library))
        except OSError:  # cut short, by a disk that was full or a machine that lost its power
            return False
        capsule: Callable[[object], object] = jax.ffi.pycapsule  # untyped in jax 0.10
        for name in TARGETS:
            jax.ffi.register_ffi_target(name, capsule(loaded[name]), platform="cpu")
        _registered.append(library)
    return True


_registered: list[Path] = []


def _name(options: Sequence[str]) -> str:
    """Another source, jaxlib, processor or set of options has another library."""
    digest = blake3(_SOURCE.read_bytes())
    for word in (importlib.metadata.version("jaxlib"), *_FLAGS, *options, *sorted(features())):
        digest.update(word.encode() + b"\0")
    return f"blocks-{digest.hexdigest()[:16]}.so"


def _headers() -> Path:
    """XLA's, of the jaxlib that is installed; found without loading it."""
    found = find_spec("jaxlib")
    assert found and found.origin
    return Path(found.origin).parent / "include"
