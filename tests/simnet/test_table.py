"""The table's own searches, with nobody else there."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest
import trio
from libp2p.peer.id import ID
from trio.testing import MockClock

from fallow.node.network.buckets import Contact
from fallow.node.network.dht import REFRESH_S, Table
from fallow.node.network.identity import id_of
from fallow.node.network.index import Index, Message
from fallow.node.network.seam import Validator
from fallow.node.network.standing import Fault
from fallow.node.network.walk import FANOUT
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError


class Alone:
    """An index node that knows no other."""

    serves = True
    """Unless the test says otherwise."""
    own = id_of(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")).to_bytes()

    def __init__(self, rules: Validator) -> None:
        self.index = Index(self.own, rules, Random(1))
        self.told: dict[bytes, tuple[bytes, ...]] = {}

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        raise AssertionError("there is nobody to ask")

    def message(self, kind: Message.MessageType, key: bytes) -> Message:
        return Message(type=kind, key=key)

    async def exchange(self, peer: object, message: Message, addresses: Sequence[bytes] = ()) -> Message:
        raise NetworkError(Code.PEER_UNREACHABLE, "there is nobody")

    def accuse(self, peer: object, fault: Fault) -> None: ...
    def connected(self, peer: object) -> bool:
        return False

    def lost(self, peer: object) -> None: ...
    def frozen(self, peer: object) -> None: ...


class Crowd(Alone):
    """Thirty others, all of whom answer."""

    def __init__(self, rules: Validator, nursery: trio.Nursery) -> None:
        super().__init__(rules)
        self._nursery = nursery
        self.given: Counter[ID] = Counter()
        for number in range(30):
            self.index.buckets.add(Contact(id_of(bytes([number]) * 32).to_bytes(), (b"somewhere",), proven=True))

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(task)

    async def exchange(self, peer: ID, message: Message, addresses: Sequence[bytes] = ()) -> Message:
        self.given[peer] += message.type == Message.ADD_PROVIDER
        return Message(type=message.type)

    def connected(self, peer: object) -> bool:
        return True


async def test_half_of_those_who_keep_a_record_are_told_in_each_round(nursery: trio.Nursery) -> None:
    rules = Validator(lambda key, value: None, lambda key, values: 0)
    crowd, where = Crowd(rules, nursery), [b"here"]
    table = Table(lambda: tuple(where), crowd, rules, Random(1))
    everybody = await table.provide("key")
    assert everybody >= FANOUT
    first = await table.provide("key")
    assert first + await table.provide("key") == everybody
    assert {count for count in crowd.given.values() if count} == {2}  # the others had their turn
    where[:] = [b"there"]
    assert await table.provide("key") == everybody


async def test_a_value_that_expires_while_it_is_looked_for_is_none() -> None:
    good = [True] * 4

    def validate(key: str, value: bytes) -> None:
        if not good.pop():
            raise RemoteProtocolError(Code.EXPIRED, "It is over.")

    def select(key: str, values: Sequence[bytes]) -> int:
        raise RemoteProtocolError(Code.EXPIRED, "It is over.")

    rules = Validator(validate, select)
    table = Table(lambda: (), Alone(rules), rules, Random(1))
    await table.put("key", b"value")
    good[:] = [False, True]  # good when it is found, and over when the newest is chosen
    assert await table.get("key") is None


@pytest.mark.parametrize(
    ("serves", "searches", "own", "others"), [(True, 0, 4, 4), (True, 9, 4, 0), (False, 0, 0, 4), (False, 9, 0, 0)]
)
async def test_who_keeps_a_part_of_the_table_looks_for_its_neighbours(
    autojump_clock: MockClock, serves: bool, searches: int, own: int, others: int
) -> None:
    rules = Validator(lambda key, value: None, lambda key, values: 0)
    alone = Alone(rules)
    alone.serves = serves
    table = Table(lambda: (), alone, rules, Random(1))
    sought: list[bytes] = []
    closest = table._closest

    async def counted(target: bytes, start: Sequence[ID] = ()) -> list[ID]:
        sought.append(target)
        return await closest(target, start)

    table._closest = counted  # type: ignore[method-assign]
    with trio.move_on_after(4.5 * REFRESH_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.maintain)
            for _ in range(searches):
                await table.get("key")
                await trio.sleep(REFRESH_S / 2)
            await trio.sleep_forever()
    assert sought.count(alone.own) == own
    assert len(sought) - sought.count(alone.own) == others
