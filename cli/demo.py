"""`fallow demo`: the mesh on this machine, in two minutes."""

from __future__ import annotations

from .environment import AsJson, usable_home
from .output import needing


async def demo(*, json: AsJson = False) -> int:
    """Exit code 0 only if everything that was shown was as it should be. No process is left, Ctrl-C or not."""
    with needing("demo"):
        from ..testnet.demo import run
    with usable_home():
        return await run(as_json=json)
