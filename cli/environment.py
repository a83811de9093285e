"""What every command takes from its surroundings: where this user's things are, and by whom the mesh is joined."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import trio
from cyclopts import Parameter

from ..node.config import default_home
from ..protocol.errors import Code, ConfigError

if TYPE_CHECKING:
    from ..client import Mesh

Bootstrap = Annotated[str | None, Parameter(help="Addresses to join by, comma-separated, instead of FALLOW_BOOTSTRAP.")]
AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.")]


def bootstrap_addresses(given: str | None) -> list[str]:
    """The addresses given, else those of `FALLOW_BOOTSTRAP`. Raises `ConfigError(bad_config)` if there are none."""
    text = given if given is not None else os.environ.get("FALLOW_BOOTSTRAP", "")
    addresses = [address for address in map(str.strip, text.split(",")) if address]
    if not addresses:
        raise ConfigError(
            Code.BAD_CONFIG,
            "No node to join by: set FALLOW_BOOTSTRAP (or --bootstrap) to an address such as "
            "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..., or to several with commas between.",
        )
    return addresses


@asynccontextmanager
async def joined(bootstrap: str | None) -> AsyncIterator[Mesh]:
    """The mesh, joined for the length of the block."""
    from ..client import connect

    async with connect(bootstrap_addresses(bootstrap), home=default_home()) as mesh:
        yield mesh


async def cancel_when_terminated(scope: trio.CancelScope) -> None:
    """SIGTERM ends what runs in the scope, in order; without this it would end the process where it stands."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
