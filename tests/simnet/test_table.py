"""The table's own searches, with nobody else there."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from fallow.node.network.dht import Table
from fallow.node.network.identity import id_of
from fallow.node.network.index import Index, Message
from fallow.node.network.seam import Validator
from fallow.node.network.standing import Fault
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError


class Alone:
    """An index node that knows no other."""

    serves = True
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
