"""Where a node's worker works: in which sandbox it starts, with what of the machine, and how much it may draw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from ..protocol.errors import Code, ConfigError
from .config import Config
from .engine.bundles import Bundle
from .engine.engine import Engine, open_engine
from .engine.sandbox import Policy, bubblewrap
from .grid.openadr_reports import Figures
from .holdings import Holdings
from .power.account import Account
from .power.keeping import Power
from .power.meters import working_meters
from .trust import is_foreign

WORKER_LOG: Final = "worker.log"


def open_worker(held: Holdings, bundles: Sequence[Bundle], cids: Sequence[str]) -> AbstractAsyncContextManager[Engine]:
    """An engine whose worker has not started: for these bundles, and for those that both lists get later."""
    config = held.config
    return open_engine(
        held.library.store,
        cids,
        log_path=config.state / WORKER_LOG,
        max_jobs=config.jobs_max,
        command=config.worker_command or None,
        policy=lambda: sandbox_policy(config, bundles),
        spare=config.spare_worker,
        options=_options(config),
        start=False,
    )


async def open_power(held: Holdings, engine: Engine) -> Power:
    """What the worker uses is counted from now on, and it draws no more than it may."""
    config, lending = held.config, held.lending
    meters = await working_meters(config.power.sys_root, held.nvml, held.log) if config.power.measure else []
    account = Account(meters, config.power.said, config.power.guess)
    held.recorder.account = account
    account.on_used = held.usage.note
    held.grid.report_of(lambda: _figures(held, account))
    power = Power(engine, account, config.power.helper, held.log, _accelerators(config) or (0,))
    power.on_calibrated = lending.calibrate
    lending.on_power = power.obey
    power.obey(lending.decision)
    return power


def sandbox_policy(config: Config, bundles: Sequence[Bundle]) -> Policy:
    """How the worker is started for these bundles. Raises `ConfigError(sandbox_missing)` if that cannot be done here."""
    foreign = [bundle for bundle in bundles if is_foreign(config.home, bundle.signed)]
    if not foreign and config.sandbox is Policy.REQUIRED:
        return Policy.PREFERRED
    if config.sandbox is Policy.REQUIRED and not (found := bubblewrap()):
        what = f"Bundle {foreign[0].manifest.name} is a stranger's and runs in a sandbox only, unless you set `sandbox`"
        raise ConfigError(Code.SANDBOX_MISSING, f"{what}. Here, {found.why_not}")
    return config.sandbox


def _options(config: Config) -> list[str]:
    options = ["--batch-unproven"] if config.batch_unproven else []
    if share := config.preferences.ram_max_used_frac:
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        options += ["--memory-mib", str(max(1, int(share * machine_bytes / 2**20)))]
    numbers = _accelerators(config)
    return [*options, "--accelerators", ",".join(map(str, numbers))] if numbers else options


def _accelerators(config: Config) -> tuple[int, ...]:
    """Those that are named; none: the first one is used."""
    return config.accelerators if config.accelerator is None else (config.accelerator,)


def _figures(held: Holdings, account: Account) -> Figures:
    """What a utility may be told of this machine, if its owner lets it."""
    lending = held.lending
    watts = account.watts if held.availability.jobs else 0.0
    return Figures(account.total_j, lending.decision.lends, lending.asked.less, watts)
