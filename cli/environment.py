"""What every command takes from its surroundings: where this user's things are, and by whom the mesh is joined."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import trio
from cyclopts import Parameter

from ..node.book import BOOK
from ..node.config import default_home
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from ..protocol.identity import peer_key_untrusted

if TYPE_CHECKING:
    from ..client import Mesh

Bootstrap = Annotated[
    str | None,
    Parameter(help="Addresses to join by (`lan`: this LAN), comma-separated, instead of FALLOW_BOOTSTRAP."),
]
LAN = "lan"
"""As `node.network.lan`, which takes seconds to import."""
AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.")]


def hex_of_32(text: str, what: str) -> bytes:
    """The key or id. Raises `ConfigError(bad_config)`, saying that the text is none of `what`."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ConfigError(Code.BAD_CONFIG, f"{text[:80]!r} is no {what}")
    return found


def bootstrap_addresses(given: str | None) -> list[str]:
    """The addresses given, else those of `FALLOW_BOOTSTRAP`; there may be none if a peer book has others. `lan` is whoever
    answers on this LAN.

    Raises `ConfigError(bad_config)`.
    """
    text = given if given is not None else os.environ.get("FALLOW_BOOTSTRAP", "")
    addresses = [address for address in map(str.strip, text.split(",")) if address]
    if not addresses and not (default_home() / BOOK).exists():
        raise _bad_bootstrap("No node to join by")
    for address in addresses:
        if address != LAN and not _names_a_peer(address):
            raise _bad_bootstrap(f"{address!r} is no address that ends in a node's peer id")
    return addresses


def is_given(bootstrap: str | None) -> bool:
    """Whether anything was given to join by, here or in `FALLOW_BOOTSTRAP`."""
    return bool((bootstrap if bootstrap is not None else os.environ.get("FALLOW_BOOTSTRAP", "")).strip(", "))


@contextmanager
def usable(what: str, path: Path) -> Iterator[None]:
    """What the system says against something of the user's on disk becomes `ConfigError(bad_config)` that names it."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output has gone; `run` knows
    except OSError as error:
        why = f"{error.filename or path}: {error.strerror or error}"
        raise ConfigError(Code.BAD_CONFIG, f"{what} cannot be used: {why}.") from None
    except UnicodeError:
        raise ConfigError(Code.BAD_CONFIG, f"{what} cannot be used: {str(path)!r} is not UTF-8.") from None


def usable_home() -> AbstractContextManager[None]:
    """As `usable`, for this user's own things."""
    return usable("FALLOW_HOME", default_home())


@asynccontextmanager
async def joined(bootstrap: str | None) -> AsyncIterator[Mesh]:
    """The mesh, joined for the length of the block."""
    from ..client import connect

    addresses = bootstrap_addresses(bootstrap)
    async with AsyncExitStack() as stack:
        with usable_home():
            mesh = await stack.enter_async_context(connect(addresses, home=default_home()))
        yield mesh


async def cancel_when_terminated(scope: trio.CancelScope) -> None:
    """SIGTERM ends what runs in the scope, in order; without this it would end the process where it stands."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def _bad_bootstrap(problem: str) -> ConfigError:
    return ConfigError(
        Code.BAD_CONFIG,
        f"{problem}: set FALLOW_BOOTSTRAP (or --bootstrap) to an address such as "
        "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..., or to several with commas between.",
    )


def _names_a_peer(address: str) -> bool:
    where, found, peer = address.rpartition("/p2p/")
    try:
        peer_key_untrusted(peer)
    except RemoteProtocolError:
        return False
    return bool(found) and where.startswith("/")


State: TypeAlias = Annotated[
    Path, Parameter(help="The node's state directory, or its folder, as `fallow node init` makes both.")
]


def state_given(folder: Path) -> Path:
    """The node's state directory, as a person names it. Raises `ConfigError(bad_config)` if there is none."""
    if not folder.is_dir():
        raise ConfigError(Code.BAD_CONFIG, f"There is no state directory {folder}; `state` in node.toml names it.")
    return state_of(folder)


def state_of(folder: Path) -> Path:
    """The node's state directory, also for whoever names the folder of its settings: `fallow node init` lays the one into the
    other."""
    inner = folder / "state"
    return folder if (folder / "node.key").exists() or not (inner / "node.key").exists() else inner
