"""A bundle from its recipe: made, hashed, signed, installed, and the machine's compile cache warm for it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import jax
import numpy as np
from blake3 import blake3

from ..node.engine import kernels
from ..node.engine.bundles import Bundle, BundleStore, file_of
from ..protocol.bundle import Manifest, Program
from ..protocol.errors import Code, EngineError, RemoteProtocolError, StoreError
from .export import export_program
from .program import Draft
from .publishing import published, sign_at, trust_on_this_machine
from .recipe import Model, Progress
from .recipes import recipe
from .weights import write_weights

WARM_S_MAX: Final = 900
"""SmolLM2's sixteen programs compile in about a minute on two cores."""


def build(name: str, store: BundleStore, on_progress: Progress | None = None) -> str:
    """The bundle `name` is installed and trusted on this machine; returns its CID.

    A bundle that this code, with this jax, has built here before is only looked up. What comes out byte for byte as
    published carries the publisher's signature; anything else (another jax, the tiny models) this machine's own, and
    the last stage says which. Raises `ConfigError(unknown_name)`, `StoreError(download_failed)`,
    `EngineError(worker_failed)` (it does not run on this machine) and `OSError` (the disk is full).
    """
    progress = on_progress or (lambda _stage, _fraction: None)
    wanted = recipe(name)
    with _building(store.root):
        record = store.root / "built" / name
        if bundle := _built_before(record, store):
            return bundle.cid
        bundle = _made(name, wanted.make(store.downloads, progress), store, progress)
        record.parent.mkdir(exist_ok=True)
        record.write_text(f"{fingerprint()} {bundle.cid}\n")
        shipped = published(name)
        progress("as published" if shipped and shipped.id == bundle.hash else "signed by this machine", 1.0)
        return bundle.cid


def install(name: str, model: Model, store: BundleStore, on_progress: Progress | None = None) -> Bundle:
    """The model is a bundle of that name, signed by this machine's publisher key, installed and trusted here.

    Raises `EngineError(worker_failed)` (it does not run on this machine) and `OSError` (the disk is full).
    """
    with _building(store.root):
        return _made(name, model, store, on_progress or (lambda _stage, _fraction: None))


def write(name: str, model: Model, directory: Path, progress: Progress) -> tuple[Manifest, Mapping[str, Path]]:
    """The model's files in `directory`, and the manifest that lists them: the same on every machine with this jax."""
    files = {"weights.safetensors": directory / "weights.safetensors"}
    progress("convert", 0.0)
    write_weights(files["weights.safetensors"], {name: model.weights[name] for name in model.parameters})
    if model.tokenizer is not None:
        files["tokenizer.json"] = directory / "tokenizer.json"
        files["tokenizer.json"].write_bytes(model.tokenizer)
    programs = []
    for index, draft in enumerate(model.programs):
        progress("export", index / len(model.programs))
        programs.append(_program(draft, model, files, directory))
    manifest = Manifest(
        name=name,
        family=model.family,
        licence=model.licence,
        provenance=model.provenance,
        entries=model.entries,
        weights=file_of(files["weights.safetensors"]),
        parameters=tuple(model.parameters),
        state=model.state,
        inputs=model.inputs,
        outputs=model.outputs,
        programs=tuple(programs),
        tokenizer=file_of(files["tokenizer.json"]) if model.tokenizer is not None else None,
        chat_template=model.chat_template,
        context_tokens_max=model.context,
        end_tokens=model.end_tokens,
        tolerance=model.tolerance,
        devices=model.layout.devices if model.layout.devices > 1 else None,
    )
    return manifest, files


def _made(name: str, model: Model, store: BundleStore, progress: Progress) -> Bundle:
    home = store.root.parent
    with tempfile.TemporaryDirectory(dir=store.downloads, prefix="build-") as scratch:
        manifest, files = write(name, model, Path(scratch), progress)
        progress("install", 0.0)
        bundle = store.install(manifest, partial(sign_at, home), files)
    progress("compile", 0.0)
    kernels.prepare(bundle, store.compile_cache)
    _warm(store, bundle)
    trust_on_this_machine(home, bundle)
    return bundle


def _program(draft: Draft, model: Model, files: dict[str, Path], directory: Path) -> Program:
    exported = export_program(draft, model.parameters, model.state, model.codes, model.layout)
    path = files[f"programs/{draft.name}"] = directory / draft.name
    path.write_bytes(exported.artifact)
    return Program(
        name=draft.name,
        role=draft.role,
        slots=draft.slots,
        length=draft.length,
        context=draft.context,
        artifact=file_of(path),
        flops=exported.flops,
        memory_bytes=exported.memory_bytes,
    )


def fingerprint() -> str:
    """Of all that decides what a build makes: this package's code and the libraries that export and convert."""
    digest = blake3(f"{jax.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _built_before(record: Path, store: BundleStore) -> Bundle | None:
    try:
        made_by, cid = record.read_text().split()
        return store.open(cid) if made_by == fingerprint() else None
    except (OSError, ValueError, StoreError, RemoteProtocolError):
        return None  # never built, or not as it was: build it


def _warm(store: BundleStore, bundle: Bundle) -> None:
    """The machine's compile cache has every program: no worker's start has to compile. In a process of its own, whose
    JAX is as a worker's and whose memory is gone afterwards."""
    command = [sys.executable, "-m", "fallow.models.warm", str(store.root), bundle.cid]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=WARM_S_MAX)
    except subprocess.TimeoutExpired:
        raise EngineError(Code.WORKER_FAILED, f"{bundle.manifest.name} did not compile in {WARM_S_MAX} s.") from None
    if run.returncode != 0:
        why = (run.stderr.strip().splitlines() or ["no word why"])[-1]
        raise EngineError(Code.WORKER_FAILED, f"{bundle.manifest.name} cannot be run here: {why}")


@contextmanager
def _building(root: Path) -> Iterator[None]:
    """One build at a time on a machine: the second finds the first one's work."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
