"""The demonstration: six nodes on this machine find each other, answer, are checked, leave, die and are paid.

Everything shown is done there and then by processes of their own; what should be so is checked, and said if it is not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trio

from ..client import Mesh, connect
from ..node.config import default_home
from ..node.engine.bundles import BundleStore
from ..node.trust import FILE_NAME, TrustList
from ..protocol.errors import Code, ConfigError, RemoteProtocolError, StoreError
from . import demo_points as points
from .demo_money import Payouts
from .demo_screen import Screen
from .demo_script import REAL, Script
from .demo_stage import Stage
from .local import Testnet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `fallow demo --json` prints."""

    answer: str
    verdict: str
    liar: str
    liar_caught: bool
    handover: Mapping[str, int | bool]
    bootstrap_loss_ok: bool
    payouts: Mapping[str, int]
    """Micro-credits by the owner's public key."""
    receipts_dir: str
    seconds: float

    def as_json(self) -> str:
        """One object on one line."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields, ensure_ascii=False)


async def run(*, as_json: bool = False, script: Script = REAL, home: Path | None = None) -> int:
    """The demonstration ran; 0 if everything was as it should be, else 1. No process of it is left, whatever happened.

    `home` is the machine's own folder: bundles that it lacks are built there first, and receipts are left in it. Raises
    `FallowError` (perhaps in an exception group) where a step could not be done at all.
    """
    machine = (home or default_home()).absolute()
    screen = Screen(to_stderr=as_json)
    await _have_bundles(script, machine)
    folder = machine / "demo" / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    began = trio.current_time()
    async with AsyncExitStack() as running:
        stage = await _set(running, script, machine, folder, screen)
        outcome = await _play(stage)
    seconds = round(trio.current_time() - began, 1)
    for name in ("nodes", "reader", "stranger"):  # logs and journals; kept if something was raised above
        shutil.rmtree(folder / name, ignore_errors=True)
    screen.end(stage.failed, seconds, stage.receipts)
    if as_json:
        print(Outcome(*outcome, str(stage.receipts), seconds).as_json(), flush=True)
    return 1 if stage.failed else 0


async def _set(running: AsyncExitStack, script: Script, machine: Path, folder: Path, screen: Screen) -> Stage:
    """The network is up, and two clients have joined: a reader, and a stranger who has met nobody yet."""
    with screen.progress() as show:
        testnet = await running.enter_async_context(
            Testnet.start(
                folder / "nodes", liars=1, bundles=(script.chat, script.embed), home=machine, on_progress=show
            )
        )
        show("joining", None)
        reader = await running.enter_async_context(_client(testnet, machine, folder / "reader"))
        stranger = await running.enter_async_context(_client(testnet, machine, folder / "stranger"))
    screen.network(testnet.nodes, await reader.nodes())
    return Stage(script, testnet, reader, stranger, screen, folder / "receipts")


async def _play(stage: Stage) -> tuple[str, str, str, bool, Mapping[str, int | bool], bool, Mapping[str, int]]:
    answer, verdict = await points.chat(stage)
    caught = await points.embeddings(stage)
    gap_ms, text_equal = await points.handover(stage)
    survived = await points.bootstrap_loss(stage)
    payouts: Payouts = await points.payouts(stage)
    handover = {"gap_ms": gap_ms, "text_equal": text_equal}
    return answer, verdict, stage.liar.peer_id, caught, handover, survived, payouts.earned_ucr


def _client(testnet: Testnet, machine: Path, home: Path) -> AbstractAsyncContextManager[Mesh]:
    """A client with its own key and wallet that trusts what this machine trusts, and knows the bootstrap only."""
    home.mkdir(parents=True)
    if (machine / FILE_NAME).exists():
        shutil.copy(machine / FILE_NAME, home / FILE_NAME)
    return connect(testnet.bootstrap, home=home)


async def _have_bundles(script: Script, machine: Path) -> None:
    """The bundles are in the machine's store. Raises `ConfigError(bundle_not_built)`."""
    missing = [name for name in (script.chat, script.embed) if not _built(name, machine)]
    if not missing:
        return
    # In a process of its own, which gives back the memory that expanding weights takes, and shows its own progress.
    command = [sys.executable, "-P", "-m", "fallow.cli", "bundle", "build", *missing]
    built = await trio.run_process(
        command, stdout=subprocess.DEVNULL, check=False, env={**os.environ, "FALLOW_HOME": str(machine)}
    )
    if built.returncode:
        raise ConfigError(Code.BUNDLE_NOT_BUILT, f"Could not build {', '.join(missing)}; the reason stands above.")


def _built(name: str, machine: Path) -> bool:
    try:
        BundleStore(machine / "store").open(TrustList.load(machine).resolve(name).cid)
    except (ConfigError, StoreError, RemoteProtocolError):
        return False
    return True
