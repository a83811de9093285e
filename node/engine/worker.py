"""The worker: a process that holds the models and does the jobs, and nothing else.

    python -m fallow.node.engine.worker --control-fd N --areas-fd N --store DIR --bundle CID ...
        [--max-jobs N] [--memory-mib N] [--accelerators N,N,...] [--unconfined] [--batch-unproven]

It confines itself, waits for `Begin`, loads the bundles, says `Ready`, and then serves until its end of the control socket
closes, at which it is gone at once, whatever it was doing. It can be killed at any moment: it keeps nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import jax

from ...protocol.errors import Code, EngineError, FallowError
from . import device, programs
from .areas import Areas
from .bundles import Bundle, BundleStore
from .caps import COMPILE_S_MAX, RUN_S_MIN, Caps, memory_bytes
from .confinement import Confinement
from .entries import Run, run_entry
from .inbox import Inbox
from .kept import Kept
from .loading import Grant, known_speed, measured_again
from .messages import Beat, Fatal, Here, KnownRates, Loading, Overrun, Rates, Served, Unserved, encode
from .priority import come_last
from .rates import measure, rated_again
from .sequences import rehearsal
from .watchdog import PATIENCE, Watchdog
from .workbench import Workbench, short

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: Sequence[str] | None = None, *, run: Run = run_entry) -> None:
    """Serves until the daemon closes the socket. `run` does the jobs: another than `run_entry` makes another worker."""
    options = _parser().parse_args(arguments)
    _end_with_parent()
    if options.accelerators:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["TPU_VISIBLE_CHIPS"] = options.accelerators
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle; it tells us by closing the socket
    come_last()
    control = socket.socket(fileno=options.control_fd)
    areas = Areas(options.areas_fd, options.max_jobs)
    store = BundleStore(options.store)
    compiled = store.worker_cache(options.bundle)
    confinement = Confinement(on=not options.unconfined)
    confinement.before_threads([store.root / "bundles", store.compile_cache], [compiled])
    inbox = Inbox(control)
    begin = inbox.first()
    control.sendall(encode(Here()))
    try:
        bundles = [store.open(cid) for cid in options.bundle]
        device.configure(compiled, beside=store.compile_cache, devices=options.accelerators.count(",") + 1)
        manifests = [bundle.manifest for bundle in bundles]
        device.introduce(manifests)
        confinement.before_programs(jax.default_backend(), manifests, options.max_jobs)
        kept = Kept(compiled, store.compile_cache)
        loading = Loader(control, options, kept, begin.known)
        for bundle in bundles:
            loading.load(bundle)
        loading.check()
    except FallowError as error:
        control.sendall(encode(Fatal(error.code.value, short(error.message))))
        raise SystemExit(error.message) from None
    rated = (rated_again(kept, loading.models[bundle], loading.announced) for bundle in loading.believed)
    chores = chain(*map(rehearsal, loading.models.values()), measured_again(kept), *rated)
    bench = Workbench(control, loading.models, run, options.max_jobs, confinement, areas, chores)
    bench.announce(tuple(loading.served))
    bench.serve(inbox, patient=not begin.known)


def _end_with_parent() -> None:
    """The kernel ends this process with the one that started it: while it is stopped, or native code keeps Python's lock, it
    does not see its socket's end. A parent that had gone before this is found out there.

    Strictly it is the thread that started it. The daemon's is its main one (`process`), and bubblewrap has no other.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


class Loader:
    """Loads one bundle after another; the daemon is told before each, so that it knows over which one a worker died."""

    def __init__(
        self, control: socket.socket, options: argparse.Namespace, kept: Kept, known: Sequence[KnownRates]
    ) -> None:
        self.models: dict[bytes, programs.Model] = {}
        """By the hash in the bundle's CID."""
        self.served: list[Served] = []
        self.refused: list[Unserved] = []
        self.believed: list[bytes] = []
        """Those whose rates an earlier worker measured: they are measured once more when there is time."""
        self._control = control
        self._known = {each.bundle: each.rates for each in known}
        self._caps = Caps(options.memory_mib * 2**20 or memory_bytes(), options.compile_s, options.run_s)
        patience = PATIENCE if jax.default_backend() == "cpu" else 1.0
        self._watchdog, self._speed, self._kept = Watchdog(control, patience=patience), known_speed(kept), kept
        self._trusted = options.batch_unproven

    def load(self, bundle: Bundle) -> None:
        """The bundle is served, or refused by its own fault. Raises `StoreError` for one that is damaged."""
        self._control.sendall(encode(Loading(bundle.hash)))
        limit, announced = partial(self._watchdog.limit, bundle.hash), partial(self.announced, bundle.hash)
        grant = Grant(self._caps, self._speed, limit, self._kept, announced)
        try:
            known = self._known.get(bundle.hash)
            model = programs.load(bundle, grant, trusted=self._trusted, checked=known is not None)
            rates = self._rated(model, known)
        except EngineError as error:
            self.refused.append(Unserved(bundle.hash, error.code.value, short(error.message)))
            self._control.sendall(encode(self.refused[-1]))  # at once: before anything of another bundle can change it
            return
        self.models[bundle.hash] = model
        self.served.append(Served(bundle.hash, bundle.manifest.name, model.numerics_class, rates))

    def _rated(self, model: programs.Model, known: Rates | None) -> Rates:
        """Half of a start would be measuring, for each of many nodes on one machine, and while all others start, too.

        What is kept counts before what the daemon knows: an earlier worker may have measured it once more."""
        bundle = model.bundle.hash
        if rates := self._kept.rates(bundle) or known:
            self.believed.append(bundle)
            return rates
        rates = measure(model)
        self._kept.learn_rates(bundle, rates)
        return rates

    @contextmanager
    def announced(self, bundle: bytes) -> Iterator[None]:
        """A program that is loaded, or measured, when the bundle serves already is as hostile as the first ones: the daemon
        knows of it.

        A bundle is refused whole: over one of its programs this process ends, and the next lacks the bundle.
        """
        if bundle not in self.models:
            yield
            return
        self._control.sendall(encode(Loading(bundle)))
        try:
            yield
        except EngineError as error:
            self._control.sendall(encode(Overrun(bundle, short(error.message))))
            os._exit(1)
        self._control.sendall(encode(Beat()))

    def check(self) -> None:
        """Raises `EngineError` if every bundle was refused."""
        if self.refused and not self.models:
            raise EngineError(Code(self.refused[0].code), "; ".join(each.message for each in self.refused))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fallow-worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--areas-fd", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--bundle", action="append", required=True, metavar="CID")
    parser.add_argument("--max-jobs", type=int, default=4)
    parser.add_argument("--memory-mib", type=int, default=0, help="what a run may take; 0: as `caps.memory_bytes` says")
    parser.add_argument(
        "--compile-s", type=float, default=COMPILE_S_MAX, help="what reading and compiling one may take"
    )
    parser.add_argument("--run-s", type=float, default=RUN_S_MIN, help="what a run may always take")
    parser.add_argument("--accelerators", default="", help="those to use, where there are several, by number")
    parser.add_argument(
        "--batch-unproven", action="store_true", help="slots are taken to be apart on the publisher's word"
    )
    parser.add_argument("--unconfined", action="store_true", help="the owner has turned the sandbox off")
    return parser


if __name__ == "__main__":
    main()
