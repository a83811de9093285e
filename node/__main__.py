"""`python -m fallow.node --config node.toml`: one node, until SIGTERM."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import trio

from ..protocol.errors import FallowError
from . import config, daemon, private
from .causes import leaves


class _Announcer:
    """Says on standard output, in one JSON line, that the node takes orders."""

    def started(self, value: daemon.Ready | None = None) -> None:
        assert value is not None, "the daemon says what it started as"
        print(json.dumps(asdict(value)), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 after an orderly end; 1, with one sentence on standard error, if the node could not start."""
    parser = argparse.ArgumentParser(prog="python -m fallow.node", description="Run one Fallow node until SIGTERM.")
    parser.add_argument("--config", type=Path, required=True, help="the node's settings, a TOML file")
    status = 0
    private.from_now_on()
    try:
        path: Path = parser.parse_args(arguments).config
        trio.run(partial(daemon.run, config.load(path), path.absolute(), task_status=_Announcer()))
    except* FallowError as errors:
        print(f"error: {next(leaves(errors))}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
