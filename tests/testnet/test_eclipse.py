"""Index nodes that hide everybody else hide nobody: over real connections, without models."""

from __future__ import annotations

from contextlib import AsyncExitStack
from hashlib import sha256

import trio

from fallow.node.network import kad
from fallow.node.network.index import Index
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.reach import ITSELF
from fallow.node.network.seam import Validator
from fallow.testnet.adversaries.eclipse import Eclipsing
from fallow.testnet.adversaries.seats import exchange

RULES = Validator(lambda key, value: None, lambda key, values: len(values) - 1)
LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
KEY = "serve/" + "b" * 59 + "/-/0"


async def test_whoever_asks_several_finds_those_whom_one_hides() -> None:
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:

            async def start(name: str, *bootstrap: str, index: type[Index] = Index, serves: bool = True) -> Mesh:
                exchange(kad, "Index", index)
                try:
                    return await stack.enter_async_context(
                        open_network(
                            sha256(name.encode()).digest(), LOOPBACK if serves else [], bootstrap, RULES,
                            mode="server" if serves else "client", reach=ITSELF,
                        )
                    )  # fmt: skip
                finally:
                    exchange(kad, "Index", Index)

            first = await start("first")
            honest = [first] + [await start(f"honest {n}", *first.addresses()) for n in range(3)]
            hostile = [await start(f"hostile {n}", *first.addresses(), index=Eclipsing) for n in range(2)]
            for node in honest[1:]:
                await node.provide(KEY)
            await honest[1].put(KEY, b"a value")
            reader = await start("reader", *first.addresses(), *hostile[0].addresses(), serves=False)
            found = {provider.peer for provider in await reader.find(KEY)}
            assert {node.key for node in honest[1:]} <= found
            assert await reader.get(KEY) == b"a value"
            # Who knows the hostile ones alone is as blind as they wish: a peer book, and more than one bootstrap, are
            # what is against that.
            blind = await start("blind", *hostile[0].addresses(), serves=False)
            seen = {provider.peer for provider in await blind.find(KEY)}
            assert seen <= {node.key for node in hostile}
