"""The node: one nursery in which the network, the engine, the owner's commands and the jobs live and end together."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ..protocol.identity import peer_id
from ..protocol.names import relay_key
from .background import start_background
from .config import Config
from .engine.bundles import Bundle
from .holdings import Holdings, open_holdings
from .library import Library
from .log import wall_ms
from .network.mesh import open_network
from .network.reach import Reach
from .network.seam import Network
from .network.table_rules import profile_rules
from .notifying import notify
from .owners_word import Ending, end_with_stdin, take_orders
from .peer import Peer
from .presence import regions
from .workplace import open_power, open_worker, sandbox_policy


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node that takes orders says of itself."""

    peer_id: str
    addresses: tuple[str, ...]
    state: str
    pid: int


async def run(
    config: Config, settings: Path | None = None, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED
) -> None:
    """The node ran until SIGTERM or SIGINT, and handed back its jobs. Started once it takes orders, unless told to end
    before that. `settings`: the file that they are from, to be named to the owner.

    Raises `FallowError` (perhaps in an exception group) if it cannot start: a bad bundle, a busy port, no bootstrap
    peer, a state directory that cannot be used or is another node's.
    """
    with open_holdings(config) as held:
        bundles = list(await trio.to_thread.run_sync(held.library.open))
        await trio.to_thread.run_sync(sandbox_policy, config, bundles)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as whole:
                ending = Ending()
                whole.start_soon(ending.await_it, signals, whole.cancel_scope)
                if config.exit_with_stdin:
                    whole.start_soon(end_with_stdin)
                async with _open_mesh(held) as network:
                    whole.start_soon(held.book.keep, network)
                    ending.last_look = partial(held.book.look, network)
                    commands = await take_orders(held, network, bundles, settings, whole)
                    start_background(held, network, whole)
                    arrivals = held.library.arrivals(network)
                    if not bundles:
                        bundles.append(await _first(arrivals, held.library))
                    cids = [bundle.cid for bundle in bundles]
                    async with open_worker(held, bundles, cids) as engine, trio.open_nursery() as nursery:
                        power = await open_power(held, engine)
                        ending.power = power
                        whole.start_soon(power.run)
                        await commands.start_worker(engine)
                        peer = Peer(held, bundles, network, engine, power)
                        commands.hand_over(peer.keeper, peer.survey)
                        ending.keeper = peer.keeper
                        await peer.start(nursery)
                        task_status.started(_ready(held, network))
                        notify(READY="1", STATUS=str(held.availability.state))
                        await peer.grow(arrivals, cids)


def _open_mesh(held: Holdings) -> AbstractAsyncContextManager[Network]:
    """Joined by the addresses of the settings, and by peers whom the node knows from before."""
    config = held.config
    reach = Reach(
        config.reach,
        config.announce,
        relay_keys=tuple(relay_key(region) for region in regions(config)),
        relays_wanted=config.relays,
        relay=config.relay if config.is_relay else None,
        punches=config.hole_punching,
    )
    return open_network(
        bytes(held.key),
        config.listen,
        config.bootstrap,
        profile_rules(wall_ms),
        reach=reach,
        known=held.book.ways_in(),
        lan=config.lan,
    )


async def _first(arrivals: AsyncIterator[Bundle], library: Library) -> Bundle:
    """The first bundle that came from the mesh: without one there is nothing to run."""
    print(f"nothing to run yet: fetching {', '.join(library.missing)} from the mesh", file=sys.stderr, flush=True)
    while not library.runs(bundle := await anext(arrivals)):
        pass
    return bundle


def _ready(held: Holdings, network: Network) -> Ready:
    return Ready(peer_id(network.key), network.addresses(), str(held.availability.state), os.getpid())
