"""How long connections of the simulated network last: as `tests/network/test_idle.py` has it of the real one."""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from random import Random

import pytest
import trio

from fallow.node.network.identity import id_of
from fallow.node.network.idle import IDLE_S, PASSING_S
from fallow.node.network.index import Message
from fallow.node.network.seam import Stream, Validator
from fallow.testnet.simnet.regions import OPEN
from fallow.testnet.simnet.scenario import Faults
from fallow.testnet.simnet.tasks.log import Log
from fallow.testnet.simnet.tasks.medium import Medium, Place
from fallow.testnet.simnet.tasks.table import TableNetwork, contact_of
from fallow.testnet.simnet.tasks.virtual import run_virtual

RULES = Validator(lambda key, value: None, lambda key, values: 0)
KEYS = tuple(
    bytes.fromhex(key)
    for key in (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    )
)
"""Of the first two examples of RFC 8032."""
Use = Callable[[TableNetwork, TableNetwork], Awaitable[object]]


async def echo(stream: Stream) -> None:
    await stream.send(await stream.receive())


async def question(near: TableNetwork, far: TableNetwork) -> None:
    """One of the table's."""
    assert near.kad is not None
    where = contact_of(far.place, far.addresses(), proven=True).addresses
    await near.kad.exchange(id_of(far.key), near.kad.message(Message.FIND_NODE, b"key"), where)


async def request(near: TableNetwork, far: TableNetwork) -> None:
    await near.request(far.key, "/test/echo", b"?", far.addresses())


async def telling(near: TableNetwork, far: TableNetwork) -> None:
    await near.request(far.key, "/test/echo", b"?", passing=True)


async def stream(near: TableNetwork, far: TableNetwork) -> None:
    opened = await near.open(far.key, "/test/echo", far.addresses())
    await opened.send(b"?")
    await opened.receive()
    await opened.close()


async def reverse(near: TableNetwork, far: TableNetwork) -> None:
    """The far side asks something else: it does not keep what the near side began."""
    await question(near, far)
    await far.request(near.key, "/test/echo", b"?")


def lasts_s(*uses: Use, client: bool = False) -> float:
    """Seconds, to one, from the end of the uses until neither side has the connection any more."""

    async def main() -> float:
        medium = Medium(Faults(), Random(1), Log())
        async with trio.open_nursery() as nursery:
            networks = []
            for number, key in enumerate(KEYS):
                medium.add(place := Place(number, key, "eu-central", "host", OPEN, f"20.0.{number}.7"))
                networks.append(network := TableNetwork(medium, place, copy_context(), nursery))
                network.begin(RULES, Random(number), serves=True, lasting=client)
                network.serve("/test/echo", echo)
            near, far = networks
            for use in uses:
                await use(near, far)
            ended = trio.current_time()
            assert near.peers() == [far.key]
            for _ in range(round(2 * IDLE_S)):
                if not far.peers():
                    break
                await trio.sleep(1.0)
            assert near.peers() == far.peers() == []
            lasted_s = trio.current_time() - ended
            nursery.cancel_scope.cancel()
        return lasted_s

    return run_virtual(main, 1)


@pytest.mark.parametrize("uses", [(question,), (question, question), (reverse,), (question, telling)])
def test_a_connection_that_a_node_began_for_the_table_ends_soon(uses: tuple[Use, ...]) -> None:
    assert PASSING_S <= lasts_s(*uses) <= PASSING_S + 1


@pytest.mark.parametrize(
    "uses",
    [(request,), (stream,), (question, request), (question, stream), (stream, question), (request, telling)],
)
def test_one_that_was_used_for_anything_else_lasts_longer(uses: tuple[Use, ...]) -> None:
    assert IDLE_S <= lasts_s(*uses) <= IDLE_S + 1


def test_so_does_a_clients() -> None:
    assert IDLE_S <= lasts_s(question, client=True) <= IDLE_S + 1
