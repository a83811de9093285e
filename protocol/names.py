"""Keys of the DHT. What is found under them is a hint, never the truth."""

from __future__ import annotations

import base64

from .identity import cid

PROFILE_NAMESPACE = "fallow"
WORLD = "-"
"""The region of a node that does not say its region, and of a client that takes any."""


def profile_key(node: bytes) -> str:
    """Where a node's latest profiles are put. Base64url: py-libp2p looks up no key of more than 50 bytes."""
    return f"/{PROFILE_NAMESPACE}/{base64.urlsafe_b64encode(node).decode().rstrip('=')}"


def provider_key(bundle: bytes, region: str = WORLD, shard: int = 0) -> str:
    """Where the nodes that serve a bundle are found. More shards come with a larger population."""
    return f"serve/{cid(bundle)}/{region}/{shard}"


def holder_key(bundle: bytes) -> str:
    """Where the nodes are found that have a bundle to give, and do not run it."""
    return f"hold/{cid(bundle)}"


def relay_key(region: str = WORLD) -> str:
    """Where the nodes are found that carry connections for those that nobody can dial."""
    return f"relay/{region}"


def shed_key(grid: bytes) -> str:
    """Where the nodes are found that trust a grid key, and pass on its shed orders."""
    return f"shed/{base64.urlsafe_b64encode(grid).decode().rstrip('=')}"
