"""Compiled programs on disk, with what admission found: a worker that has to be there at once does not ask everything again.

What lies there is native code, and loading it can run anything: it is read only from folders that nothing but this machine's
own builds, or workers for exactly the same bundles, have written (`bundles.BundleStore.worker_cache`), and never from a peer.
Its hash stands before it: XLA's readers die of what a disk has damaged, and the bundle would be blamed for it.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from functools import cache, reduce
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeAlias, TypeVar

import jax
from blake3 import blake3
from jax.experimental import serialize_executable
from jaxlib.version import __version__ as jaxlib_version

from .artifact import Signature
from .caps import Speed
from .flops import Work
from .messages import Rates
from .processor import features, models

M = TypeVar("M", Speed, Rates)

FOLDER: Final = "programs"
HASH_BYTES: Final = blake3.digest_size
SPEED: Final = "speed"
RATES: Final = "rates-"
"""Names of the files that hold what this machine was seen to do, beside that folder; a bundle's hash follows the second."""
BEST_S: Final = 24 * 3600.0
"""So long the best of what was measured counts. Then the newest does, whatever it is: a machine that has become slower for
good promises too much for a day at most."""
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_VERSION: Final = 5
_UNREADABLE: Final = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError, MemoryError, pickle.UnpicklingError,
    RuntimeError,
)  # fmt: skip
"""What comes of a file that was cut short, or written by another version. Then the program is admitted and compiled anew."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a compiled program beside its code."""

    isolated: bool
    reason: str
    needed_bytes: int
    """Memory of one run."""
    flops: int
    moved_bytes: int
    bounded: bool
    """The work of one run. How long it may take follows from that and from how fast the machine has been seen to be: what a
    busy moment showed of that is not kept for ever."""

    @property
    def work(self) -> Work:
        return Work(self.flops, self.moved_bytes, self.bounded)


Program: TypeAlias = tuple[Found, jax.stages.Compiled]


class Kept:
    """The programs in `own`, and those in `beside`, which is only read."""

    def __init__(self, own: Path, beside: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._own = own / FOLDER
        self._beside = beside / FOLDER if beside else None
        self._measures = [own, *([beside] if beside else [])]
        self._ahead: dict[str, Future[Program | None]] = {}

    def read_ahead(self, artifact: bytes, signature: Signature, *, flops: int) -> None:
        """A thread of its own reads the program, which is soon to be found: XLA holds no lock of Python's meanwhile."""
        name = _name(artifact, signature, flops)
        reader = ThreadPoolExecutor(1, "kept")
        self._ahead[name] = reader.submit(self._read, name, signature)
        reader.shutdown(wait=False)

    def find(self, artifact: bytes, signature: Signature, *, flops: int) -> Program | None:
        """The program of these bytes, if it was compiled before for a machine like this, and admitted with that claim."""
        name = _name(artifact, signature, flops)
        ahead = self._ahead.pop(name, None)
        return ahead.result() if ahead else self._read(name, signature)

    def _read(self, name: str, signature: Signature) -> Program | None:
        for folder in (self._own, self._beside):
            with suppress(*_UNREADABLE):
                if folder is not None:
                    head, _, code = unhashed((folder / name).read_bytes()).partition(b"\n")
                    taken, given = _trees(signature)
                    # For its own devices alone: jax would take all that this process has, and no run succeed.
                    devices = jax.devices()[: signature.devices]
                    compiled = serialize_executable.deserialize_and_load(code, taken, given, execution_devices=devices)
                    return Found(**json.loads(head)), compiled
        return None

    def keep(
        self, artifact: bytes, signature: Signature, found: Found, compiled: jax.stages.Compiled, *, flops: int
    ) -> None:
        """It is found from now on, whole or not at all; if there is no room for it, it is compiled again next time."""
        with suppress(*_UNREADABLE):
            code, _, _ = serialize_executable.serialize(compiled)
            self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
            head = json.dumps(asdict(found)).encode()
            _write(self._own / _name(artifact, signature, flops), head + b"\n" + code)

    def speed(self) -> Speed | None:
        """The best that was seen of this machine within `BEST_S`, or else the last, if any was measured: neighbours only ever
        make it slower."""
        return self._seen(SPEED, Speed)

    def learn(self, speed: Speed) -> None:
        """This was seen of it, too. As `keep`: if there is no room for it, it is measured again next time."""
        self._learn(SPEED, speed)

    def rates(self, bundle: bytes) -> Rates | None:
        """The same of this machine at one bundle."""
        return self._seen(RATES + bundle.hex(), Rates)

    def learn_rates(self, bundle: bytes, rates: Rates) -> None:
        """As `learn`."""
        self._learn(RATES + bundle.hex(), rates)

    def _seen(self, name: str, kind: type[M]) -> M | None:
        seen = self._all(name, kind)
        fresh = [figures for since_s, figures in seen if self._fresh(since_s)]
        if fresh or not seen:
            return reduce(_better, fresh) if fresh else None
        return max(seen, key=lambda each: each[0])[1]

    def _learn(self, name: str, measured: M) -> None:
        fresh = [each for each in self._all(name, type(measured)) if self._fresh(each[0])]
        since_s = min((since_s for since_s, _ in fresh), default=self._clock())
        best = asdict(reduce(_better, (figures for _, figures in fresh), measured))
        with suppress(*_UNREADABLE):
            content = best | {"machine": _machine(), "host": _host(), "since_s": since_s}
            _write(self._measures[0] / name, json.dumps(content).encode())

    def _all(self, name: str, kind: type[M]) -> list[tuple[float, M]]:
        return [found for folder in self._measures if (found := _measured(folder / name, kind))]

    def _fresh(self, since_s: float) -> bool:
        return 0 <= self._clock() - since_s < BEST_S


def hashed(content: bytes) -> bytes:
    """What `unhashed` takes: the content behind its BLAKE3 hash."""
    return blake3(content).digest() + content


def unhashed(stored: bytes) -> bytes:
    """The content. Raises `ValueError` if it is not what was stored."""
    content = stored[HASH_BYTES:]
    if blake3(content).digest() != stored[:HASH_BYTES]:
        raise ValueError("what is kept there was damaged")
    return content


def _name(artifact: bytes, signature: Signature, flops: int) -> str:
    """By everything that decides whether it is admitted, what a compiler makes of it, and on which processors that runs.

    Another manifest may claim other FLOPs of the same program, and is to be refused for it.
    """
    return blake3(f"{_machine()} {signature} {flops} ".encode() + artifact).hexdigest()


def _machine() -> str:
    device = jax.devices()[0]
    made_for = [
        _VERSION,
        jaxlib_version,
        device.platform,
        device.device_kind,
        os.environ.get("XLA_FLAGS", ""),
        sorted(features()),
    ]
    return str(made_for)


@cache
def _host() -> str:
    """What else decides how fast this machine is: a home may be moved, and its worker be given other cores or devices."""
    device = jax.devices()[0]
    driver = ""
    with suppress(OSError):
        driver = _DRIVER.read_text() if device.platform != "cpu" else ""
    return str([models(), len(os.sched_getaffinity(0)), len(jax.devices()), device.client.platform_version, driver])


def _write(target: Path, content: bytes) -> None:
    """It is there, whole or not at all."""
    scratch = target.with_name(f".{target.name}.{token_hex(4)}")  # in a sandbox every worker is process 1
    scratch.write_bytes(hashed(content))
    scratch.replace(target)


def _better(one: M, other: M) -> M:
    """Each figure as it was at the quieter moment."""
    return type(one)(*map(max, astuple(one), astuple(other)))


def _measured(path: Path, kind: type[M]) -> tuple[float, M] | None:
    """What stands there, and since when (seconds since 1970), if it is of a machine like this."""
    with suppress(*_UNREADABLE):
        found = json.loads(unhashed(path.read_bytes()))
        if (found.pop("machine"), found.pop("host")) == (_machine(), _host()):
            return float(found.pop("since_s")), kind(**found)
    return None


def _trees(signature: Signature) -> tuple[Any, Any]:
    """The structure of a program's arguments and of its results."""
    params, state = list(signature.params), list(signature.state)
    taken = jax.tree.structure(((params, state, *signature.inputs), {}))
    return taken, jax.tree.structure((state, *signature.outputs))
