"""Somebody at a terminal, with a home of their own."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from fallow.cli import run
from fallow.node.keys import load_or_create


@dataclass
class User:
    """Types commands, one at a time; FALLOW_HOME has to be this home."""

    home: Path

    async def __call__(self, *words: str | Path, code: int = 0) -> Any:
        """What the command prints with `--json`; what it says on standard error if it is to fail."""
        out, err = io.StringIO(), io.StringIO()

        def typed() -> int:
            """In this process: thirty more of them would take a minute to start."""
            with redirect_stdout(out), redirect_stderr(err):
                return run([*map(str, words), *([] if code else ["--json"])])

        assert await trio.to_thread.run_sync(typed) == code, err.getvalue()
        return err.getvalue() if code else json.loads(out.getvalue())

    @property
    def key(self) -> bytes:
        return bytes(load_or_create(self.home / "keys" / "client").verify_key)

    async def owed(self, party: bytes) -> int:
        """What this user owes the party, as its ledger has it."""
        parties = {each["party"]: each for each in (await self("balance"))["parties"]}
        return int(parties.get(party.hex(), {"theirs_ucr": 0})["theirs_ucr"])

    async def fill(self, units: int) -> None:
        """So many units are in the purse. The test's mint has its wallet pay its bills by itself."""
        while (await self("purse", "fill"))["units"] != units:
            if not (await self("purse", "show"))["bills"]:
                await self("purse", "fill", str(units))
