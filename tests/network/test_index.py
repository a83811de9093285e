"""What an index node keeps and answers, by itself: bounds, and who gives way."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as some
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from fallow.node.network.buckets import BUCKET_MAX, NETWORK_MAX, SPARE_MAX, Buckets, Contact
from fallow.node.network.entries import (
    ADDRESS_BYTES_MAX,
    NAMED_MAX,
    PROVIDED_KEY_MAX,
    PROVIDED_S,
    PROVIDER_BYTES_MAX,
    VALUE_S,
    Providers,
    Sender,
    Shelf,
    network_of,
    place_of,
)
from fallow.node.network.index import PROVIDE_RATE_MAX, PROVIDE_SEC, Index
from fallow.node.network.seam import KEY_BYTES_MAX, Validator
from fallow.node.network.standing import Fault
from fallow.protocol.errors import Code, RemoteProtocolError

OWN = b"this node"
HOME, ELSEWHERE = "203.0.113.0/24", "198.51.100.0/24"
WHERE = (b"an address",)


def _validate(key: str, value: bytes) -> None:
    if not value.startswith(b"ok"):
        raise RemoteProtocolError(Code.BAD_RECORD, f"{key}: not ok")


RULES = Validator(_validate, lambda key, values: max(range(len(values)), key=lambda at: values[at]))


def _index() -> Index:
    return Index(OWN, RULES, Random(1))


def _sender(number: int, network: str = HOME) -> Sender:
    return Sender(b"peer %d" % number, network)


def _shelf(entries_max: int = 64, bytes_max: int = 10**6, sender_max: int = 10**6) -> Shelf[int]:
    return Shelf(place_of(OWN), 60.0, entries_max, bytes_max, sender_max)


def _put(shelf: Shelf[int], name: int, sender: Sender, now_s: float = 0.0, length_bytes: int = 1) -> bool:
    return shelf.put(name, b"%d" % name, name, length_bytes, sender, now_s)


def test_a_flood_from_one_network_displaces_itself() -> None:
    shelf = _shelf()
    assert all(_put(shelf, name, _sender(name, ELSEWHERE)) for name in range(20))
    for name in range(1000, 4000):
        _put(shelf, name, _sender(name))
        assert len(shelf) <= 64
    assert all(shelf.get(name, 0.0) == name for name in range(20))


def test_a_flood_from_one_peer_displaces_itself_within_its_network() -> None:
    shelf = _shelf()
    assert all(_put(shelf, name, _sender(name)) for name in range(20))
    for name in range(1000, 4000):
        _put(shelf, name, _sender(1000))
    assert all(shelf.get(name, 0.0) == name for name in range(20))


def test_what_is_farthest_gives_way_first() -> None:
    shelf = _shelf(entries_max=8)
    names = sorted(range(100), key=lambda name: place_of(b"%d" % name) ^ place_of(OWN))
    for name in Random(2).sample(names, len(names)):
        _put(shelf, name, _sender(name))
    assert [name for name in names if shelf.get(name, 0.0) is not None] == names[:8]


def test_a_sender_has_its_share_and_may_renew_it() -> None:
    shelf = _shelf(sender_max=3)
    assert [_put(shelf, name, _sender(1)) for name in range(5)] == [True, True, True, False, False]
    assert _put(shelf, 2, _sender(1), now_s=1.0)
    assert _put(shelf, 4, _sender(2))
    assert shelf.get(3, 1.0) is None


def test_what_has_expired_is_not_given_and_makes_room() -> None:
    shelf = _shelf(entries_max=4)
    for name in range(4):
        _put(shelf, name, _sender(1))
    assert shelf.get(0, 59.0) == 0 and shelf.get(0, 60.0) is None
    assert _put(shelf, 9, _sender(2), now_s=61.0)
    assert len(shelf) == 1
    shelf.sweep(200.0)
    assert (len(shelf), shelf.length_bytes) == (0, 0)


@given(
    some.lists(
        some.tuples(some.integers(0, 40), some.integers(0, 5), some.integers(1, 30), some.sampled_from([HOME, ""]))
    )
)
def test_a_shelf_never_holds_more_than_it_may(puts) -> None:
    shelf = _shelf(entries_max=10, bytes_max=100, sender_max=6)
    for now_s, (name, peer, length_bytes, network) in enumerate(puts):
        _put(shelf, name, _sender(peer, network), float(now_s), length_bytes)
        kept = [shelf._entries[name] for name in shelf._entries]
        assert len(kept) <= 10
        assert shelf.length_bytes == sum(entry.length_bytes for entry in kept) <= 100
        assert all(sum(e.sender.peer == entry.sender.peer for e in kept) <= 6 for entry in kept)


def test_thousands_of_providers_from_one_network_leave_the_others_found() -> None:
    providers = Providers(place_of(OWN), Random(1))
    for number in range(20):
        assert providers.add(b"key", WHERE, _sender(number, f"{number}.0.0.0/24"), 0.0)
    for number in range(1000, 3000):
        providers.add(b"key", WHERE, _sender(number), 1.0)
    assert len(providers) == PROVIDED_KEY_MAX
    named = dict(providers.named(b"key", 2.0))
    assert len(named) == NAMED_MAX
    assert all(_sender(number).peer in named for number in range(20))


def test_in_one_network_the_senior_stay_and_newcomers_have_a_chance() -> None:
    providers = Providers(place_of(OWN), Random(1))
    for number in range(PROVIDED_KEY_MAX + 1000):
        providers.add(b"key", WHERE, _sender(number), float(number) / 1000)
    kept = providers._keys[b"key"]
    assert {_sender(number).peer for number in range(PROVIDED_KEY_MAX // 2)} <= kept.keys()
    assert sum(_sender(number).peer in kept for number in range(1000, PROVIDED_KEY_MAX + 1000)) > 10


def test_each_answer_names_others_and_together_they_name_all() -> None:
    providers = Providers(place_of(OWN), Random(1))
    for number in range(200):
        providers.add(b"key", WHERE, _sender(number), 0.0)
    answers = [{peer for peer, _ in providers.named(b"key", 0.0)} for _ in range(20)]
    assert all(len(answer) == NAMED_MAX for answer in answers)
    assert len(set().union(*answers)) == 200


@pytest.mark.spec("D-30")
def test_providers_expire_and_leave_nothing() -> None:
    providers = Providers(place_of(OWN), Random(1))
    providers.add(b"key", WHERE, _sender(1), 0.0)
    providers.add(b"other", WHERE, _sender(1), 10.0)
    assert providers.named(b"key", PROVIDED_S) == []
    providers.sweep(PROVIDED_S)
    assert (len(providers), len(providers._keys)) == (1, 1)


def test_a_providers_addresses_are_few_and_short() -> None:
    providers = Providers(place_of(OWN), Random(1))
    assert not providers.add(b"key", (), _sender(1), 0.0)
    assert not providers.add(b"key", (bytes(ADDRESS_BYTES_MAX + 1),), _sender(1), 0.0)
    assert providers.add(b"key", tuple(bytes(200) for _ in range(1000)), _sender(1), 0.0)
    [(_, addresses)] = providers.named(b"key", 0.0)
    assert sum(map(len, addresses)) <= PROVIDER_BYTES_MAX


def _put_question(value: bytes, key: bytes = b"/fallow/x", inner: bytes | None = None) -> Message:
    question = Message(type=Message.PUT_VALUE, key=key)
    question.record.key, question.record.value = key if inner is None else inner, value
    return question


@pytest.mark.spec("D-3", "D-4")
def test_a_value_is_kept_only_if_valid_and_newer() -> None:
    index = _index()
    ask = Message(type=Message.GET_VALUE, key=b"/fallow/x")
    assert index.answer_untrusted(_put_question(b"forged"), _sender(1), 0.0) is Fault.BAD_RECORD
    assert index.answer_untrusted(_put_question(b"ok 1", inner=b"/fallow/y"), _sender(1), 0.0) is Fault.BAD_RECORD
    assert index.answer_untrusted(_put_question(b"ok 1", key=b"\xff"), _sender(1), 0.0) is Fault.BAD_RECORD
    assert isinstance(index.answer_untrusted(_put_question(b"ok 2"), _sender(1), 0.0), Message)
    assert index.answer_untrusted(_put_question(b"ok 1"), _sender(2), 0.0) is Fault.STALE_RECORD
    assert isinstance(index.answer_untrusted(_put_question(b"ok 2"), _sender(2), 1.0), Message)
    answer = index.answer_untrusted(ask, _sender(3), VALUE_S)
    assert isinstance(answer, Message) and answer.record.value == b"ok 2"
    late = index.answer_untrusted(ask, _sender(3), VALUE_S + 1)
    assert isinstance(late, Message) and not late.HasField("record")


@pytest.mark.spec("D-3")
def test_a_value_that_has_become_invalid_is_not_passed_on() -> None:
    valid = True
    index = Index(OWN, Validator(lambda key, value: _validate(key, b"ok" if valid else b""), RULES.select), Random(1))
    assert isinstance(index.answer_untrusted(_put_question(b"ok 2"), _sender(1), 0.0), Message)
    valid = False
    answer = index.answer_untrusted(Message(type=Message.GET_VALUE, key=b"/fallow/x"), _sender(1), 0.0)
    assert isinstance(answer, Message) and not answer.HasField("record")
    assert len(index.values) == 0


def _provide(key: bytes, *peers: bytes) -> Message:
    question = Message(type=Message.ADD_PROVIDER, key=key)
    for peer in peers:
        question.providerPeers.add(id=peer, addrs=WHERE)
    return question


@pytest.mark.spec("D-30")
def test_a_peer_provides_for_itself_alone_and_not_too_often() -> None:
    index, peer = _index(), _sender(1)
    for others in ((), (b"another",), (peer.peer, b"another")):
        assert index.answer_untrusted(_provide(b"key", *others), peer, 0.0) is Fault.BAD_RECORD
    index = _index()
    taken = [
        index.answer_untrusted(_provide(b"key %d" % number, peer.peer), peer, number / 100) for number in range(500)
    ]
    assert [isinstance(each, Message) for each in taken] == [number < PROVIDE_RATE_MAX for number in range(500)]
    assert set(taken[PROVIDE_RATE_MAX:]) == {Fault.REFUSED_STREAM}
    assert isinstance(index.answer_untrusted(_provide(b"later", peer.peer), peer, PROVIDE_SEC), Message)


@pytest.mark.parametrize("kind", [Message.FIND_NODE, Message.GET_VALUE, Message.GET_PROVIDERS])
def test_questions_of_any_key_are_answered_with_who_is_closer(kind) -> None:
    index = _index()
    for number in range(100):
        index.buckets.add(Contact(b"peer %d" % number, WHERE, proven=True))
    for key in (b"", bytes(KEY_BYTES_MAX + 1)):
        assert index.answer_untrusted(Message(type=kind, key=key), _sender(1), 0.0) is Fault.BAD_RECORD
    answer = index.answer_untrusted(Message(type=kind, key=b"k" * 200), _sender(1), 0.0)
    assert isinstance(answer, Message)
    named = [entry.id for entry in answer.closerPeers]
    assert BUCKET_MAX - 1 <= len(named) <= BUCKET_MAX and _sender(1).peer not in named


def test_a_bucket_keeps_those_that_answered_and_replaces_the_dead() -> None:
    buckets = Buckets(OWN)
    far = [peer for number in range(2000) if (place_of(peer := b"%d" % number) ^ place_of(OWN)) >> 255]
    for peer in far[:10]:
        buckets.add(Contact(peer, WHERE, proven=True))
    for peer in far[10:200]:
        buckets.add(Contact(peer, WHERE))
    assert len(buckets) == BUCKET_MAX
    for peer in far[200:300]:
        buckets.add(Contact(peer, WHERE, proven=True))
    assert set(buckets.peers()) == {*far[:10], *far[200:210]}
    for peer in far[:10]:
        buckets.remove(peer)
    assert set(buckets.peers()) == {*far[200:210], *far[300 - SPARE_MAX : 300]}


def test_one_public_network_does_not_fill_a_bucket() -> None:
    buckets = Buckets(OWN)
    for number in range(500):
        buckets.add(Contact(b"%d" % number, WHERE, network=network_of("8.8.8.8"), proven=True))
    assert all(len(bucket) <= NETWORK_MAX for bucket in buckets._buckets.values())
    buckets.remove(buckets.peers()[0])
    for number in range(500, 600):
        buckets.add(Contact(b"%d" % number, WHERE, network=network_of("192.168.1.1"), proven=True))
    assert len(buckets) > 2 * BUCKET_MAX


@given(some.binary(max_size=400))
def test_no_bytes_make_an_index_node_fail(raw) -> None:
    try:
        question = Message.FromString(raw)
    except Exception:  # noqa: BLE001 - protobuf's own errors: `kad` answers them before
        return
    assert isinstance(_index().answer_untrusted(question, _sender(1), 0.0), Message | Fault)
