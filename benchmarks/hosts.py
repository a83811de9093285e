"""Hosts of the mesh, each a process with its own key, network and presence, and no worker: what discovery alone costs.

What a host says is real: signed profiles with a worker key, under a bundle that nobody could run. Hosts are forked from one
process that has imported everything, so that fifty of them start in seconds; what they share with it is in no figure of
memory here. They end with their `Hosts`, however that ends: each leaves when its pipe does, and is killed by its own id.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import trio
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from fallow.node.availability import Availability
from fallow.node.config import Config
from fallow.node.connection import Survey
from fallow.node.log import EventLog, wall_ms
from fallow.node.mandates import Authority
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.presence import Presence
from fallow.node.profiles import Offer
from fallow.protocol.bundle import GENERATE, SCORE
from fallow.protocol.envelope import sign
from fallow.protocol.identity import WorkerKey
from fallow.protocol.limits import WORKER_KEY_MS_MAX
from fallow.protocol.prices import Price
from fallow.protocol.profiles import ServedBundle
from fallow.protocol.streams import PROBE_PROTOCOL, PROFILE_PROTOCOL

BUNDLE: Final = sha256(b"a bundle that hosts only talk about").digest()
LOOPBACK: Final = "/ip4/127.0.0.1/tcp/0"
START_S: Final = 120.0
ANSWER_S: Final = 30.0
PRELOADED: Final = ["fallow.node.presence", "fallow.node.network.mesh", "fallow.client.discovery"]
"""Everything that takes long to import; not this module, which the forking process would not find."""
BOOTSTRAPS: Final = 3
"""Hosts by which the others join."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one host begins."""

    seed: bytes
    state: Path
    bootstrap: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    """Run in the process before anything else; a function of a module."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a host says once it is there."""

    key: bytes
    addresses: tuple[str, ...]
    joined_s: float
    """From nothing to a network that has joined."""
    joined_cpu_s: float
    """Of its own processor time."""
    announced_s: float
    """From there until its profile and its provider records were with others."""


@dataclass(frozen=True, slots=True)
class State:
    """A host at one moment."""

    cpu_s: float
    private_bytes: int
    """Written or mapped by it alone."""
    descriptors: int
    tasks: int
    """Of trio."""
    peers: int
    rounds: Mapping[str, int]
    """How often it has announced itself."""


class Host:
    """One host's process, as the measurement sees it."""

    def __init__(self, process: ForkServerProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe
        self.joined: Joined
        self.frozen = False

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def key(self) -> bytes:
        return self.joined.key

    async def ready(self) -> None:
        """The host has joined and announced itself."""
        with trio.fail_after(START_S):
            self.joined = await self._receive()

    async def state(self) -> State:
        """The host as of now."""
        state: State = await self._ask("state")
        return state

    async def objects(self) -> Counter[str]:
        """How many Python objects of each type it has."""
        counted: Counter[str] = await self._ask("objects")
        return counted

    async def _ask(self, what: str) -> Any:
        self._pipe.send(what)
        with trio.fail_after(ANSWER_S):
            return await self._receive()

    async def _receive(self) -> Any:
        await trio.lowlevel.wait_readable(self._pipe.fileno())
        return self._pipe.recv()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    async def kill(self) -> None:
        """Its process has ended without a word."""
        self._process.kill()
        with trio.fail_after(ANSWER_S):
            await trio.lowlevel.wait_readable(self._process.sentinel)
        self._process.join()
        self._pipe.close()


class Hosts:
    """Those that run. Made by `running`."""

    def __init__(self, folder: Path, prepare: Callable[[], None] | None) -> None:
        self._folder = folder
        self._prepare = prepare
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._begun = 0
        self.live: list[Host] = []

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses to join by."""
        return tuple(host.joined.addresses[0] for host in self.live[:BOOTSTRAPS])

    async def start(self) -> Host:
        """One more host, with a key that nobody has seen before."""
        self._begun += 1
        seed = sha256(b"a benchmark's host %d of %d" % (self._begun, os.getpid())).digest()
        plan = Plan(seed, self._folder / f"host-{self._begun}", self.bootstrap, self._prepare)
        ours, theirs = multiprocessing.Pipe()
        process = self._context.Process(target=_run, args=(plan, theirs), daemon=True)
        process.start()
        theirs.close()
        host = Host(process, ours)
        self.live.append(host)
        await host.ready()
        return host

    async def grow(self, count: int, at_once: int = 4) -> None:
        """So many are there; those by which the others join came first."""
        while len(self.live) < min(count, BOOTSTRAPS):
            await self.start()
        while len(self.live) < count:
            async with trio.open_nursery() as nursery:
                for _ in range(min(at_once, count - len(self.live))):
                    nursery.start_soon(self.start)

    async def kill(self, hosts: Sequence[Host]) -> None:
        """These are gone, all at once."""
        self.live = [host for host in self.live if host not in hosts]
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(host.kill)


@asynccontextmanager
async def running(count: int, prepare: Callable[[], None] | None = None) -> AsyncIterator[Hosts]:
    """So many hosts have joined and announced themselves; when the block ends, none is left."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        hosts = Hosts(Path(folder), prepare)
        try:
            await hosts.grow(count)
            yield hosts
        finally:
            with trio.CancelScope(shield=True):
                await hosts.kill(hosts.live)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, to the nanosecond: of all threads that it has now."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def private_bytes(pid: int) -> int:
    """Memory of a process that it shares with no other."""
    return _rollup(pid, "Private_")


def resident_bytes(pid: int) -> int:
    """All memory of a process: what it would take if it were the only one."""
    return _rollup(pid, "Rss")


def descriptors() -> int:
    """Files and sockets that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _rollup(pid: int, kind: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def _run(plan: Plan, pipe: Connection) -> None:
    gc.freeze()  # the first whole collection would write to all that was imported, and so make it this host's own
    if plan.prepare:
        plan.prepare()
    trio.run(_host, plan, pipe)


async def _host(plan: Plan, pipe: Connection) -> None:
    plan.state.mkdir(parents=True)
    key = SigningKey(plan.seed)
    rounds = {"announced": 0}
    began, cpu = time.perf_counter(), time.process_time()
    async with open_network(plan.seed, [LOOPBACK], plan.bootstrap, profile_rules(wall_ms)) as network:
        joined_s, joined_cpu_s = time.perf_counter() - began, time.process_time() - cpu
        presence, survey = make_presence(plan.state, key, network, rounds)
        network.serve(PROFILE_PROTOCOL, presence.answer)
        network.serve(PROBE_PROTOCOL, survey.probing.answer)
        began = time.perf_counter()
        await presence.announce()
        announced_s = time.perf_counter() - began
        pipe.send(Joined(network.key, network.addresses(), joined_s, joined_cpu_s, announced_s))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(presence.keep, EventLog(plan.state))
            nursery.start_soon(survey.run)
            while True:
                await trio.lowlevel.wait_readable(pipe.fileno())
                try:
                    asked = pipe.recv()
                except EOFError:
                    break
                pipe.send(_objects() if asked == "objects" else _state(network, rounds))
            nursery.cancel_scope.cancel()


class _Counted(Presence):
    """Says how often it did what it does over and over."""

    rounds: dict[str, int]

    async def _announce(self, spread_s: float) -> None:
        await super()._announce(spread_s)
        self.rounds["announced"] += 1


def make_presence(state: Path, key: SigningKey, network: Mesh, rounds: dict[str, int]) -> tuple[Presence, Survey]:
    """A node's presence with an offer that no worker stands behind, and what it knows of its connection.

    It probes others as every node does, and moves no bulk to learn its rates, which nodes do every six hours.
    """
    config = Config(state, (), state, state / "store", state / "owner.key")
    availability = Availability(jobs_max=config.jobs_max)
    availability.start()
    availability.worker(True)
    node, now = bytes(key.verify_key), wall_ms()
    served = ServedBundle(BUNDLE, (GENERATE, SCORE), "float32/0.0/cpu/none/any", 300_000, 20_000, 0)
    worker_key = WorkerKey(node, bytes(PrivateKey.generate().public_key), now, now + WORKER_KEY_MS_MAX)
    prices = tuple(Price(BUNDLE, entry, 0, 1, 4, 0) for entry in served.entries)
    offer = Offer(node, {}, (served,), prices, sign(worker_key, key))
    authority = Authority.load(config, now)
    survey = Survey(
        config,
        key,
        authority.owner,
        network,
        mandate=lambda: presence.mandate.envelope,
        may_move=lambda: False,
        on_change=lambda: presence.refresh(),
        on_link=lambda link: None,
        log=EventLog(state),
    )
    presence = _Counted(
        config, key, authority, network, availability, offer, connection=survey.now, witnesses=survey.witnesses.shown
    )
    presence.rounds = rounds
    return presence, survey


def _state(network: Mesh, rounds: Mapping[str, int]) -> State:
    return State(
        cpu_s(os.getpid()),
        private_bytes(os.getpid()),
        descriptors(),
        trio.lowlevel.current_statistics().tasks_living,
        len(network.peers()),
        dict(rounds),
    )


def _objects() -> Counter[str]:
    gc.collect()
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


def in_own_network() -> None:
    """The script runs in a network namespace of its own, where every byte on the loopback is its own; it is run anew.

    Without the right to make one it goes on where it is, and says so.
    """
    inside = "FALLOW_BENCH_NAMESPACE"
    if inside in os.environ:
        return
    os.environ[inside] = "own"
    unshare = ["unshare", "--net", *(["--map-root-user", "--user"] if os.geteuid() else [])]
    try:
        if os.spawnvp(os.P_WAIT, "unshare", [*unshare, "ip", "link", "set", "lo", "up"]):
            raise OSError("unshare failed")
    except OSError as error:
        print(f"no network namespace of its own ({error}): others' bytes are counted too", file=sys.stderr)
        return
    words = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
    os.execvp("unshare", [*unshare, *words])


def loopback_bytes() -> int:
    """What went over the loopback so far, headers of Ethernet, IP and TCP included, each packet once."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return 0


def raise_descriptors() -> None:
    """As many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
