"""`fallow pay`: what is owed to a node is settled on a rail, and the node says that it counts."""

from __future__ import annotations

import secrets
from typing import Annotated

from cyclopts import Parameter

from ..node.log import wall_ms
from ..node.rails.opening import LEDGER
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from ..protocol.identity import peer_key_untrusted, short
from .environment import AsJson, hex_of_32
from .output import line, needing, print_json, progress
from .side import Whose, side_of

UCR_MAX = 2**53 - 1


async def pay(
    node: Annotated[str, Parameter(help="Its address, as `fallow nodes --json` has it: /ip4/.../p2p/12D3K...")],
    ucr: Annotated[int, Parameter(help="Micro-credits; `fallow balance` shows what is due.")],
    /,
    *,
    reference: Annotated[
        str,
        Parameter(help="Your name for the payment: the same one is paid once, however often you repeat the command."),
    ],
    rail: Annotated[
        str, Parameter(help="ledger, cashu or bank; what the last two need stands in rails.toml.")
    ] = LEDGER,
    debtor: Annotated[
        str | None,
        Parameter(help="Whose debt it settles, as a public key in hex, if not that of who pays: your node's, say."),
    ] = None,
    address: Annotated[str, Parameter(help="Where the owner is paid, if the node tells nobody: `IBAN BIC name`.")] = "",
    state: Whose = None,
    json: AsJson = False,
) -> None:
    """So many micro-credits are paid to the owner of the node at this address, and the node counts them.

    By the ledger, what the node owes you is set off. By cashu, tokens that only the owner can spend are handed over. By bank, a
    file for your bank is written, and the transfer named to the node, which counts it once its own bank has it.
    """
    with needing("node"):
        from ..client.paying import pay as pay_node
        from ..node.network.mesh import open_network
        from ..node.network.table_rules import profile_rules
    check_amount(ucr, reference)
    peer = key_at(node)
    whose = hex_of_32(debtor, "public key of 64 hex digits.") if debtor else None
    with side_of(state) as side:
        paying = side.rail(rail)
        with progress("paying"):
            async with open_network(
                secrets.token_bytes(32), [], [node], profile_rules(wall_ms), mode="client"
            ) as network:
                paid = await pay_node(
                    network, peer, (node,), paying, whose or side.party, ucr, reference, address=address,
                    ledger=side.ledger,
                )  # fmt: skip
    if json:
        print_json({"payment": paid.payment.hex(), "ucr": paid.ucr, "rail": rail, "reference": reference})
    else:
        line(f"{paid.ucr} ucr are paid to {short(peer)}, and counted there.")


def check_amount(ucr: int, reference: str) -> None:
    """Raises `ConfigError(bad_config)` for no amount, or without a name."""
    if not 0 < ucr <= UCR_MAX or not reference.strip():
        raise ConfigError(Code.BAD_CONFIG, "Say how many micro-credits, and a reference: the same one is paid once.")


def key_at(address: str) -> bytes:
    """The key of the node at the address. Raises `ConfigError(bad_config)`."""
    where, found, peer = address.rpartition("/p2p/")
    try:
        if found and where.startswith("/"):
            return peer_key_untrusted(peer)
    except RemoteProtocolError:
        pass
    message = f"{address[:120]!r} is no address of a node, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."
    raise ConfigError(Code.BAD_CONFIG, f"{message}; `fallow nodes --json` lists them.")
