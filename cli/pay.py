"""`fallow pay`: what this client owes a node is settled on a rail, and the node says that it counts."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.keys import load_or_create
from ..node.log import wall_ms
from ..node.rails.opening import FOLDER, LEDGER, SETTINGS, client_rails, open_rails
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import peer_key_untrusted, short
from .environment import AsJson, hex_of_32, usable_home
from .output import line, needing, print_json, progress


async def pay(
    node: str,
    ucr: int,
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
        Parameter(help="Whose debt it settles, as a public key in hex, if not yours: your node's to a judge, say."),
    ] = None,
    address: Annotated[str, Parameter(help="Where the owner is paid, if the node tells nobody: `IBAN BIC name`.")] = "",
    json: AsJson = False,
) -> None:
    """So many micro-credits are paid to the owner of the node at this address, and the node counts them.

    By the ledger, what the node's owner owes you is set off. By cashu, tokens that only the owner can spend are handed over. By
    bank, a file for your bank is written, and the transfer named to the node, which counts it once its own bank has it.
    """
    with needing("node"):
        from ..client.paying import pay as pay_node
        from ..node.network.mesh import open_network
        from ..node.network.table_rules import profile_rules
    if ucr <= 0 or not reference.strip():
        raise ConfigError(Code.BAD_CONFIG, "Say how many micro-credits, and a reference: the same one is paid once.")
    home = default_home()
    peer = peer_key_untrusted(node.rpartition("/")[2])
    whose = hex_of_32(debtor, "public key of 64 hex digits.") if debtor else None
    with ExitStack() as stack, usable_home():
        key = load_or_create(home / "keys" / "client")
        payer = whose or bytes(key.verify_key)
        rails = open_rails(client_rails(home), home / FOLDER, key, stack)
        if rail not in rails:
            raise ConfigError(
                Code.BAD_CONFIG, f"{home / SETTINGS} says nothing of {rail}; here are {', '.join(rails)}."
            )
        with progress("paying"):
            async with open_network(
                secrets.token_bytes(32), [], [node], profile_rules(wall_ms), mode="client"
            ) as network:
                paid = await pay_node(network, peer, (node,), rails[rail], payer, ucr, reference, address=address)
    if json:
        print_json({"payment": paid.payment.hex(), "ucr": paid.ucr, "rail": rail, "reference": reference})
    else:
        line(f"{paid.ucr} ucr are paid to {short(peer)}, and counted there.")
