"""A test network under random faults with a load beside it, and what came of it. A run leaves a folder:

run.json        what was asked for: seed, minutes, plan and the rest; with it, the same run is made again
plan.jsonl      the faults that were to come, each from when for how long
nodes/          the network's own folder: each node's settings, journal and logs, and faults.jsonl, what befell it when
clients/        the clients' wallets, books and what they said
jobs.jsonl      every job, when it was asked and when it ended, as its client saw it
samples.jsonl   memory and descriptors of every node, every five seconds
report.json     the figures
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import trio

from ..node.config import default_home
from ..node.log import wall_ms
from ..protocol.errors import Code, ConfigError, FallowError
from . import books, days, errands, record, reference, starting, watching
from .crowd import Crowd, asking
from .faults import RATE_PER_MINUTE, Fault, schedule
from .local import Testnet
from .plan import Plan
from .planfile import as_table, parse
from .record import LocalNode
from .report import Report, report

Progress = Callable[[str, float | None], None]

RUN, PLAN, REPORT, NODES = "run.json", "plan.jsonl", "report.json", "nodes"
MINUTES_MAX: Final = 24 * 60.0
CLIENTS_MAX: Final = 16
AT_ONCE_MAX: Final = 32
BALANCE_S: Final = 30.0
"""For the books of both sides to agree when the clients have left."""
_ENDED_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be; together with the plan, everything that it depends on."""

    plan: Plan
    minutes: float
    seed: int
    rate_per_minute: float = RATE_PER_MINUTE
    assurance: str = "quorum:2/3"
    clients: int = 2
    at_once: int = 2
    """Jobs of each client side by side."""
    pause_ms: int = 200
    """Between two of them."""

    def check(self) -> None:
        """Raises `ConfigError(bad_config)` for what cannot be run."""
        if not 0 < self.minutes <= MINUTES_MAX:
            raise ConfigError(Code.BAD_CONFIG, f"A run takes up to {MINUTES_MAX:.0f} minutes, not {self.minutes:g}.")
        if not 1 <= self.clients <= CLIENTS_MAX or not 1 <= self.at_once <= AT_ONCE_MAX:
            raise ConfigError(
                Code.BAD_CONFIG, f"There are 1 to {CLIENTS_MAX} clients, each with 1 to {AT_ONCE_MAX} jobs at once."
            )
        if len(self.plan.bundles) < 2:
            raise ConfigError(Code.BAD_CONFIG, "The nodes serve two bundles: one that writes, one that makes vectors.")

    def save(self, folder: Path) -> None:
        """The folder says what its run is to be."""
        plain = {**asdict(self), "plan": as_table(self.plan)}
        (folder / RUN).write_text(json.dumps(plain, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Options:
        """What the run that left this folder was to be. Raises `ConfigError(bad_config)`."""
        try:
            plain = json.loads((folder / RUN).read_text())
            return cls(**{**plain, "plan": parse(plain["plan"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(Code.BAD_CONFIG, f"{folder} is no run's folder: {error}.") from None


@dataclass
class _Run:
    """A run while it lasts."""

    folder: Path
    options: Options
    testnet: Testnet
    crowd: Crowd
    befell: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """Nodes that a fault has ended, or that are being started again."""
    turns: defaultdict[str, trio.Lock] = field(default_factory=lambda: defaultdict(trio.Lock))
    """By node: one fault at a time."""

    @property
    def directory(self) -> Path:
        return self.testnet.directory


async def run(
    folder: Path, options: Options, *, home: Path | None = None, faults: Sequence[Fault] | None = None,
    on_progress: Progress = lambda stage, fraction: None,
) -> Report:  # fmt: skip
    """The run is over, none of its processes is left, and the folder has its report.

    The `faults` are those of the seed and the plan, unless others are given. Raises `FallowError` if the network could not
    be started, or there is no honest engine here to compare with.
    """
    options.check()
    run_ms = round(options.minutes * 60_000)
    coming = schedule(options.seed, options.plan, run_ms, options.rate_per_minute) if faults is None else tuple(faults)
    folder = _claimed(folder)
    machine = home or default_home()
    options.save(folder)
    (folder / PLAN).write_text("".join(json.dumps(fault.as_json()) + "\n" for fault in coming))
    began = trio.current_time()
    async with Testnet.start(folder / NODES, plan=options.plan, home=machine, on_progress=on_progress) as testnet:
        crowd = Crowd(
            folder, machine, options.seed, options.assurance, options.clients, options.at_once, options.pause_ms
        )
        whole = _Run(folder, options, testnet, crowd)
        await _live(whole, coming, on_progress)
        on_progress("comparing the books", None)
        found = await books.settled(testnet.nodes, crowd.homes, BALANCE_S)
    on_progress("comparing results with an honest engine's", None)
    jobs = errands.read(folder / errands.JOBS)
    chat, embed = options.plan.bundles[:2]
    wrong = await reference.wrong(machine, chat, embed, jobs, folder)
    done = report(
        options.plan, options.assurance, options.clients, jobs, wrong, found,
        watching.growth(watching.read(folder / watching.LOG)),
        faults=whole.befell, crashed=whole.ended, broken=whole.broken, seconds=round(trio.current_time() - began, 1),
    )  # fmt: skip
    (folder / REPORT).write_text(done.whole() + "\n")
    return done


def recorded(folder: Path) -> list[Fault]:
    """The faults that a run had before it. Raises `ConfigError(bad_config)`."""
    try:
        lines = [json.loads(line) for line in (folder / PLAN).read_text().splitlines()]
        return [Fault(**{**line, "nodes": tuple(line["nodes"])}) for line in lines]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(Code.BAD_CONFIG, f"{folder} is no run's folder: {error}.") from None


async def _live(whole: _Run, coming: Sequence[Fault], progress: Progress) -> None:
    """Faults come and go, clients ask; then all is mended, and the clients have left."""
    seconds = whole.options.minutes * 60
    send, receive = trio.open_memory_channel[LocalNode](_ENDED_MAX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watching.watch, whole.directory, whole.folder / watching.LOG, send)
        nursery.start_soon(_keep_up, whole, receive)
        nursery.start_soon(days.live, whole.directory, whole.options.plan)
        async with asking(whole.crowd, whole.testnet) as broken:
            began = trio.current_time()
            async with trio.open_nursery() as befalling:
                for fault in coming:
                    befalling.start_soon(_befall, whole, fault, began)
                while (passed := trio.current_time() - began) < seconds:
                    progress(f"{whole.befell.total()} faults so far", passed / seconds)
                    await trio.sleep(min(1.0, seconds - passed))
            progress("clients leave", None)
        nursery.cancel_scope.cancel()
    whole.broken += broken


async def _befall(whole: _Run, fault: Fault, began: float) -> None:
    """The fault came at its moment, or when its nodes were whole again, and lasted as long as it was to; what could not be done
    is remembered."""
    await trio.sleep_until(began + fault.at_ms / 1000)
    ends = fault.name in ("kill", "restart")
    async with AsyncExitStack() as turns:
        # A busy machine may take longer to start a node than the schedule has it: who is being started cannot be killed yet.
        for node in sorted(fault.nodes):
            await turns.enter_async_context(whole.turns[node])
        begins = trio.current_time()
        try:
            with _down(whole, fault.nodes if ends else ()):
                await whole.testnet.begin(fault)
                whole.befell[fault.name] += 1
                await trio.sleep_until(max(began + fault.end_ms / 1000, begins + fault.for_ms / 1000))
                await whole.testnet.end(fault)
        except FallowError as error:
            whole.broken.append(f"{fault.name} of {', '.join(fault.nodes)} at {fault.at_ms} ms: {error.message}")


@contextmanager
def _down(whole: _Run, nodes: Sequence[str]) -> Iterator[None]:
    """These nodes end because they are told to."""
    whole.down |= set(nodes)
    try:
        yield
    finally:
        whole.down -= set(nodes)


async def _keep_up(whole: _Run, ended: trio.MemoryReceiveChannel[LocalNode]) -> None:
    """A node that ended though no fault had ended it is remembered, and started again, as a machine's supervisor would."""
    async for node in ended:
        if (
            node.name in whole.down
            or next(n for n in record.read(whole.directory) if n.name == node.name).pid != node.pid
        ):
            continue
        whole.ended.append(f"{node.name} at {wall_ms()}")
        with _down(whole, [node.name]):
            try:
                await starting.start_again(whole.directory, node)
            except FallowError as error:
                whole.broken.append(f"{node.name} did not start again: {error.message}")


def _claimed(folder: Path) -> Path:
    """The folder, absolute and there, with no run in it. Raises `ConfigError(bad_config)`."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RUN).exists():
        raise ConfigError(Code.BAD_CONFIG, f"{folder} has a run already: name another folder, or remove that one.")
    return folder
