"""Which protocol is spoken: said at once, where there is one only.

libp2p's own (0.8.1, protocol_muxer/multiselect_client.py) greets, waits for the greeting, and then says what it wants:
a round trip for nothing, three times until the first question. Every implementation of multistream-select takes both together.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from libp2p.abc import IMultiselectCommunicator
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_client import (
    DEFAULT_NEGOTIATE_TIMEOUT,
    MULTISELECT_PROTOCOL_ID,
    PROTOCOL_NOT_FOUND_MSG,
    MultiselectClient,
)
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils import encode_delim

from .sockets import Socket


class AtOnce(MultiselectClient):
    """The dialler's side, for one protocol."""

    async def select_one_of(
        self,
        protocols: Sequence[TProtocol],
        communicator: IMultiselectCommunicator,
        negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> TProtocol:
        """The protocol, agreed on; of a fresh connection, it will turn out with the first answer. Raises
        `MultiselectClientError`."""
        if len(protocols) != 1 or not isinstance(communicator, MultiselectCommunicator):
            return await super().select_one_of(protocols, communicator, negotiate_timeout)
        [wanted], wire = protocols, communicator.read_writer
        words = encode_delim(MULTISELECT_PROTOCOL_ID.encode()) + encode_delim(wanted.encode())
        with trio.move_on_after(negotiate_timeout):
            try:
                await wire.write(words)
                if isinstance(wire, RawConnection) and isinstance(wire.stream, Socket):
                    wire.stream.expect(words)
                    return wanted
                greeting, answer = await communicator.read(), await communicator.read()
            except (IOException, MultiselectCommunicatorError) as error:
                raise MultiselectClientError(f"no answer to {wanted}: {error}") from error
            if (greeting, answer) == (MULTISELECT_PROTOCOL_ID, wanted):
                return wanted
            if answer == PROTOCOL_NOT_FOUND_MSG:
                raise MultiselectClientError(f"protocols not supported: {wanted}")
            raise MultiselectClientError(f"{answer!r} is no answer to {wanted}")
        raise MultiselectClientError(f"no answer to {wanted} within {negotiate_timeout} s")


def say_at_once(host: BasicHost, upgrader: TransportUpgrader) -> None:
    """From now on the host does, for connections and streams."""
    host.multiselect_client = AtOnce()
    for selector in (upgrader.security_multistream._selector, upgrader.muxer_multistream._selector):
        selector.multiselect_client = AtOnce()
