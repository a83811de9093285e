"""What a container of an exported network runs, told by its environment.

  python -m fallow.testnet.export.entry node | load

  FALLOW_BOOTSTRAP_HOST, FALLOW_BOOTSTRAP_PEER   the first node's host name and peer id
  FALLOW_STATE (/var/lib/fallow), FALLOW_HOME    where the node keeps its own, where bundles and trust list are
node:
  FALLOW_KIND, FALLOW_BUNDLES, FALLOW_PORT       as in a node's settings
  FALLOW_IP                                      where others dial it; else what this machine's name stands for
  FALLOW_KEY                                     a file with the seed of its key, in hex: of the first node alone
  FALLOW_REGIONS                                 one of them is its own, by the number at the end of its host name
  FALLOW_ADVERSARY                               which one it is
load: see `load`
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ...node.keys import SEED_BYTES
from ...protocol.errors import Code, ConfigError, FallowError
from ..adversaries import find
from .cluster import PORT, STATE

RESOLVE_S: Final = 120.0
RESOLVE_AGAIN_S: Final = 1.0
"""A cluster starts all pods at once: until the first one is placed, its name stands for nothing."""


def main(arguments: list[str] | None = None) -> None:
    """The process becomes the node, or runs the load. Ends with one sentence if it cannot."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words == ["node"]:
            command = prepare(os.environ)
            os.execv(command[0], command)
        if words == ["load"]:
            from .load import run

            raise SystemExit(run(os.environ, bootstrap_of(os.environ)))
    except FallowError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit("say `node` or `load`")


def prepare(told: Mapping[str, str]) -> list[str]:
    """The node's settings and keys are on disk; returns its command line. Raises `ConfigError(bad_config)`."""
    state = Path(told.get("FALLOW_STATE", STATE))
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    first = "FALLOW_KEY" in told
    if first:
        _place_key(Path(told["FALLOW_KEY"]), state / "node.key")
    ip = told.get("FALLOW_IP") or _resolved(socket.gethostname())
    port = told.get("FALLOW_PORT", str(PORT))
    adversary = find(told["FALLOW_ADVERSARY"]) if told.get("FALLOW_ADVERSARY") else None
    settings: dict[str, object] = {
        "state": str(state),
        "home": _needed(told, "FALLOW_HOME"),
        "kind": _needed(told, "FALLOW_KIND"),
        "bundles": _needed(told, "FALLOW_BUNDLES").split(","),
        "listen": [f"/ip4/0.0.0.0/tcp/{port}"],
        "announce": [f"/ip4/{ip}/tcp/{port}"],
        "bootstrap": [] if first else [bootstrap_of(told)],
        "reach": "direct",  # within a cluster nobody is kept from anybody
        "lan": False,  # neither do its pods hear each other's multicast
        "spare_worker": False,
        "settle_s": 0,
    }
    if regions := told.get("FALLOW_REGIONS"):
        settings["region"] = _own_region(regions.split(","), told.get("HOSTNAME", socket.gethostname()))
    settings |= adversary.settings() if adversary else {}
    config = state / "node.toml"
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    start = adversary.command() if adversary else [sys.executable, "-P", "-m", "fallow.node"]
    return [*start, "--config", str(config)]


def bootstrap_of(told: Mapping[str, str]) -> str:
    """The first node's address, once its name stands for one. Raises `ConfigError(bad_config)`."""
    ip = _resolved(_needed(told, "FALLOW_BOOTSTRAP_HOST"))
    return f"/ip4/{ip}/tcp/{told.get('FALLOW_PORT', PORT)}/p2p/{_needed(told, 'FALLOW_BOOTSTRAP_PEER')}"


def _resolved(host: str) -> str:
    until = time.monotonic() + RESOLVE_S
    while True:
        try:
            return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() > until:
                raise _bad(f"{host[:80]!r} stands for no address: {error.strerror}") from None
            time.sleep(RESOLVE_AGAIN_S)


def _place_key(given: Path, target: Path) -> None:
    """The node has the key whose seed is given, unless it has one."""
    try:
        seed = bytes.fromhex(given.read_text("ascii").strip())
    except (OSError, ValueError):
        raise _bad(f"FALLOW_KEY: {given} is no file with a seed in hex") from None
    if len(seed) != SEED_BYTES:
        raise _bad(f"FALLOW_KEY: {given} does not hold {SEED_BYTES} bytes")
    if not target.exists():
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(seed)


def _own_region(regions: list[str], host: str) -> str:
    number = re.search(r"(\d+)$", host)
    return regions[int(number[1]) % len(regions)] if number else regions[0]


def _needed(told: Mapping[str, str], name: str) -> str:
    if not told.get(name):
        raise _bad(f"{name} is not set")
    return told[name]


def _bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"The container cannot start: {problem}.")


if __name__ == "__main__":
    main()
