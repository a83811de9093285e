"""Fetches one bundle in a process of its own: `STORE CID KEY ADDRESS...`; says each time that a chunk was kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from fallow.node.engine.bundles import BundleStore
from fallow.node.fetching import Progress, fetch
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Provider, Validator


def say(progress: Progress) -> None:
    if progress.stage == "fetching":
        print(progress.bytes_done, flush=True)


async def main(root: str, cid: str, key: str, *addresses: str) -> None:
    async def find() -> list[Provider]:
        await trio.lowlevel.checkpoint()
        return [Provider(bytes.fromhex(key), addresses)]

    rules = Validator(lambda key, value: None, lambda key, values: 0)
    async with open_network(os.urandom(32), [], addresses, rules, mode="client") as network:
        await fetch(network, BundleStore(Path(root)), cid, find, on_progress=say)


trio.run(main, *sys.argv[1:])
