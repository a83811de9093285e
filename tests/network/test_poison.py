"""Index nodes that lie, and peers that put into the table what does not belong there: over real connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from heapq import nsmallest
from itertools import count, islice

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr import Multiaddr
from nacl.signing import SigningKey

from fallow.node.network.entries import NAMED_MAX, PROVIDED_SENDER_MAX, place_of
from fallow.node.network.identity import id_of
from fallow.node.network.index import PROVIDE_RATE_MAX
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Validator
from fallow.node.network.standing import Fault
from fallow.node.network.table_rules import profile_rules
from fallow.node.network.walk import FANOUT
from fallow.protocol.envelope import sign
from fallow.protocol.errors import NetworkError
from fallow.protocol.identity import EXECUTOR
from fallow.protocol.names import profile_key
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.published import Profiles

NOW_MS = 1_790_000_000_000
MINUTES = 60_000
RULES = profile_rules(lambda: NOW_MS)
VICTIM, LIAR = SigningKey(b"v" * 32), SigningKey(b"l" * 32)
VICTIM_KEY = bytes(VICTIM.verify_key)
KEY = profile_key(VICTIM_KEY)
ANYTHING = Validator(lambda key, value: None, lambda key, values: len(values) - 1)


def _published(sequence: int, signer: SigningKey = VICTIM, issued_ms: int = NOW_MS) -> bytes:
    until = issued_ms + 20 * MINUTES
    mandate = bytes(32)
    capability = CapabilityProfile(
        VICTIM_KEY, mandate, sequence, issued_ms, until, None, "", (EXECUTOR,), (), (), (), 4, 0, 0, ()
    )
    connectivity = ConnectivityProfile(
        VICTIM_KEY, sequence, issued_ms, until, (), (), None, 0, None, None, None, None, None, None
    )
    if signer is LIAR:
        liar = bytes(LIAR.verify_key)
        capability, connectivity = replace(capability, node=liar), replace(connectivity, node=liar)
    return Profiles(sign(capability, signer), sign(connectivity, signer)).encode()


def _points(node: Mesh, of: Mesh) -> float:
    return node._door.peers.points(str(id_of(of.key)), trio.current_time())


@pytest.mark.spec("D-3", "D-4", "W-5")
@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(_published(9, LIAR), id="forged"),
        pytest.param(_published(9, issued_ms=NOW_MS + 60 * MINUTES), id="future"),
        pytest.param(_published(9, issued_ms=NOW_MS - 60 * MINUTES), id="expired"),
        pytest.param(_published(3), id="stale"),
        pytest.param(b"\xff" * 100, id="garbage"),
    ],
)
async def test_poison_reaches_no_reader_and_bans_its_sender(start_node, poison) -> None:
    first = await start_node(0, rules=RULES)
    honest = [first] + [await start_node(number, first.addresses(), rules=RULES) for number in (1, 2, 3)]
    hostile = await start_node(4, first.addresses(), rules=ANYTHING)
    with trio.fail_after(40):
        assert await honest[1].put(KEY, _published(5)) == len(honest)  # the hostile one takes it too
        for node in honest:
            assert await hostile.put(KEY, poison) == 0
            assert await node.get(KEY) == _published(5)
            assert _points(node, hostile) > Fault.STALE_RECORD / 2
        assert hostile._table._kad.index.value(KEY.encode(), trio.current_time()) == poison  # and it tells others so
        message = hostile._table._kad.message(Message.PUT_VALUE, KEY.encode())
        message.record.key, message.record.value = KEY.encode(), poison
        with suppress(NetworkError):  # refused at the end, for good
            while first._door.peers.banned_s(str(id_of(hostile.key)), trio.current_time()) == 0:
                with suppress(NetworkError):
                    await hostile._table._kad.exchange(id_of(first.key), message)
        while hostile.key in first.peers():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await honest[3].get(KEY) == _published(5)


async def test_a_flood_of_provider_records_is_bounded_and_hides_nobody(start_node) -> None:
    first = await start_node(0)
    nodes = [first] + [await start_node(number, first.addresses()) for number in (1, 2)]
    hostile = await start_node(3, first.addresses())
    with trio.fail_after(40):
        await nodes[1].provide("serve/x")
        kad = hostile._table._kad
        for number in range(PROVIDED_SENDER_MAX):
            message = kad.message(Message.ADD_PROVIDER, b"serve/x" if number % 2 else b"serve/%d" % number)
            message.providerPeers.add(id=kad.own, addrs=[Multiaddr("/ip4/127.0.0.1/tcp/9").to_bytes()] * 16)
            with suppress(NetworkError):
                await kad.exchange(id_of(first.key), message)
            if first._door.peers.banned_s(str(id_of(hostile.key)), trio.current_time()):
                break
        else:
            pytest.fail("nobody minded")
        assert len(first._table._kad.index.providers) <= PROVIDE_RATE_MAX + 1
        assert nodes[1].key in [provider.peer for provider in await nodes[2].find("serve/x")]
        message = nodes[2]._table._kad.message(Message.ADD_PROVIDER, b"serve/x")
        message.providerPeers.add(id=id_of(VICTIM_KEY).to_bytes(), addrs=[b"\x04\x7f\x00\x00\x01\x06\x00\x09"])
        with pytest.raises(NetworkError):
            await nodes[2]._table._kad.exchange(id_of(first.key), message)
        assert VICTIM_KEY not in [provider.peer for provider in await nodes[1].find("serve/x")]


TARGET = "serve/" + "b" * 59 + "/-/0"


def _near(prefix: bytes, most: int) -> list[bytes]:
    """So many seeds, out of 200 for each, whose nodes lie closest to the target."""

    def distance(seed: bytes) -> int:
        key = bytes(SigningKey(seed).verify_key)
        return place_of(id_of(key).to_bytes()) ^ place_of(TARGET.encode())

    return nsmallest(most, (sha256(prefix + b"%d" % number).digest() for number in range(200 * most)), key=distance)


def _made_up() -> Iterator[bytes]:
    """Ids of nobody, ever closer to the target than what is near."""
    for number in count():
        name = id_of(sha256(b"nobody %d" % number).digest()).to_bytes()
        if not (place_of(name) ^ place_of(TARGET.encode())) >> 250:
            yield name


def _lying(hostile: list[Mesh], where: bytes) -> None:
    """From now on the nodes name each other and peers that nobody ever was, all close to the target; they keep nothing
    that they are given, and name providers that are not there. All those are said to be at the address."""
    made_up = list(islice(_made_up(), 15 * len(hostile)))
    for number, node in enumerate(hostile):
        index = node._table._kad.index
        honest_answer = index.answer_untrusted

        def lie(question, sender, now_s, number=number, index=index, honest_answer=honest_answer):
            if question.type in (Message.ADD_PROVIDER, Message.PUT_VALUE, Message.PING):
                return Message(type=question.type, key=question.key)
            if question.type == Message.FIND_NODE and question.key != TARGET.encode():
                return honest_answer(question, sender, now_s)  # it is known as a good neighbour
            answer = Message(type=question.type, key=question.key)
            if question.type == Message.GET_VALUE:
                answer.record.key, answer.record.value = question.key, b"ok 1"  # true once
            if question.type == Message.GET_PROVIDERS:
                for each in range(NAMED_MAX):
                    name = id_of(sha256(b"no provider %d %d" % (number, each)).digest()).to_bytes()
                    answer.providerPeers.add(id=name, addrs=[where])
            for friend in hostile:
                addresses = [Multiaddr(address).to_bytes() for address in friend.addresses()]
                answer.closerPeers.add(id=id_of(friend.key).to_bytes(), addrs=addresses)
            for name in made_up[15 * number : 15 * (number + 1)]:
                answer.closerPeers.add(id=name, addrs=[where])
            assert len(answer.closerPeers) == FANOUT
            return answer

        vars(index)["answer_untrusted"] = lie


async def test_a_third_of_hostile_index_nodes_around_a_key_hides_nobody(start_node) -> None:
    nobody = trio.socket.socket()  # it refuses whoever comes; of those that say nothing, `test_walk` has enough
    await nobody.bind(("127.0.0.1", 0))
    where = Multiaddr(f"/ip4/127.0.0.1/tcp/{nobody.getsockname()[1]}").to_bytes()
    first = await start_node(0)
    hostile = [await start_node(seed, first.addresses()) for seed in _near(b"hostile", 5)]
    honest = [first] + [await start_node(number, first.addresses()) for number in range(1, 10)]
    _lying(hostile, where)
    with trio.fail_after(120):
        for node in honest[1:3]:
            assert await node.provide(TARGET) >= len(honest) - 1
        await honest[1].put(TARGET, b"ok 2")
        client = await start_node(20, first.addresses(), listen="", mode="client")
        for node in (client, honest[4]):
            told: list[bytes] = []
            found = await node.find(TARGET, lambda provider, told=told: told.append(provider.peer))
            assert {provider.peer for provider in found} >= {node.key for node in honest[1:3]}
            assert {node.key for node in honest[1:3]} <= set(told)
            assert await node.get(TARGET) == b"ok 2"
    nobody.close()
