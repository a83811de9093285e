"""`fallow gateway`: the mesh for OpenAI clients on this machine."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated

import trio
from cyclopts import Parameter, validators

from ..protocol.codec import INTEGER_MAX
from ..protocol.errors import Code, ConfigError
from ..protocol.limits import PRICE_MAX_UCR
from .ask import ASSURANCE, WORDS
from .environment import Bootstrap, cancel_when_terminated, joined
from .output import print_json, progress, remark


async def gateway(
    *,
    listen: Annotated[str, Parameter(help="Address and port; port 0 takes any free one.")] = "127.0.0.1:8765",
    assurance: Annotated[
        str, Parameter(help=f"For requests without an X-Fallow-Assurance header: {WORDS}.")
    ] = ASSURANCE,
    max_price: Annotated[
        int,
        Parameter(
            help="What an order may cost at the most, in micro-credits. An X-Fallow-Max-Price header may lower it.",
            validator=validators.Number(gte=0, lte=INTEGER_MAX),
        ),
    ] = PRICE_MAX_UCR,
    bootstrap: Bootstrap = None,
    json: Annotated[bool, Parameter(help="When it serves, print one JSON object with its URL.")] = False,
) -> None:
    """Serves until Ctrl-C or SIGTERM. Whoever reaches the address spends this user's credit."""
    from ..client.assurance import read_assurance
    from ..client.gateway import serve
    from ..client.gateway_http import listening

    default = read_assurance(assurance)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        try:
            listener = stack.enter_context(listening(listen))
        except ValueError:  # a port of thousands of digits, or a name that cannot be looked up
            raise ConfigError(Code.BAD_CONFIG, f"{listen[:80]!r} is no address to listen on.") from None
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        with progress("joining the mesh"):
            mesh = await stack.enter_async_context(joined(bootstrap))
        urls: list[str] = await nursery.start(
            partial(serve, mesh, listener, assurance=default, price_max_ucr=max_price)
        )
        if json:
            print_json({"url": f"{urls[0]}/v1"})
        else:
            remark(f"serving {urls[0]}/v1 to OpenAI clients; Ctrl-C ends it")
        await trio.sleep_forever()
