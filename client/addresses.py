"""Where a node says that it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from ..node.network.seam import Network
from ..protocol.errors import NetworkError, RemoteProtocolError
from ..protocol.names import profile_key
from ..protocol.published import decode_profiles_untrusted

GET_S: Final = 2.0
"""For the DHT's answer."""


async def published_addresses(network: Network, node: bytes, now_ms: int, within_s: float = GET_S) -> tuple[str, ...]:
    """Where the node says that it is, by its own profile in the DHT; nothing if there is none."""
    with trio.move_on_after(within_s), suppress(NetworkError, RemoteProtocolError):
        if value := await network.get(profile_key(node)):
            return decode_profiles_untrusted(value, now_ms).connectivity.record.addresses
    return ()
