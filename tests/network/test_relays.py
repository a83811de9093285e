"""Which relays a node keeps, told step by step: no network, no clock."""

from __future__ import annotations

from random import Random

from fallow.node.network.relays import RETRY_S, Relays, Reserve, Search

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def at(ip: str) -> tuple[str, ...]:
    return (f"/ip4/{ip}/tcp/1",)


def asked(relays: Relays, now_s: float) -> list[bytes]:
    return [action.relay for action in relays.next(now_s) if isinstance(action, Reserve)]


def test_it_searches_then_reserves_on_two_of_different_networks() -> None:
    for seed in range(20):
        relays = Relays(Random(seed))
        assert relays.next(0) == [Search()]
        assert relays.next(0) == []
        relays.found([(A, at("198.18.0.1")), (B, at("198.18.0.2")), (C, at("203.0.113.1"))], 1)
        chosen = asked(relays, 1)
        assert len(chosen) == 2 and C in chosen


def test_a_reservation_is_renewed_at_half_time_and_gone_at_its_end() -> None:
    relays = Relays(Random(0), wanted=1)
    relays.found([(A, at("198.18.0.1"))], 0)
    assert asked(relays, 0) == [A]
    relays.granted(A, ("way",), 100, 0)
    assert asked(relays, 49) == [] and relays.deadline_s(49) == 50
    assert asked(relays, 50) == [A]
    relays.failed(A, 50)
    assert relays.addresses == ("way",)
    assert asked(relays, 75) == [A]
    relays.failed(A, 99)
    relays.next(100)
    assert relays.addresses == ()


def test_a_relay_that_failed_is_left_alone_for_longer_each_time() -> None:
    relays = Relays(Random(0), wanted=1)
    relays.found([(A, at("198.18.0.1"))], 0)
    assert asked(relays, 0) == [A]
    relays.failed(A, 0)
    assert asked(relays, RETRY_S - 1) == []
    assert asked(relays, RETRY_S) == [A]
    relays.failed(A, RETRY_S)
    assert asked(relays, 3 * RETRY_S - 1) == []
    assert asked(relays, 3 * RETRY_S) == [A]


def test_the_place_of_a_lost_relay_goes_to_another() -> None:
    relays = Relays(Random(0), wanted=1)
    relays.found([(A, at("198.18.0.1")), (B, at("203.0.113.1"))], 0)
    (first,) = asked(relays, 0)
    relays.granted(first, ("way",), 100, 0)
    relays.lost(first, 10)
    assert asked(relays, 10) == [({A, B} - {first}).pop()]


def test_a_machine_that_moves_comes_back_to_the_relays_that_it_had() -> None:
    for seed in range(20):
        relays = Relays(Random(seed))
        relays.found([(bytes([n]) * 32, at(f"198.{n}.0.1")) for n in range(1, 9)], 0)
        held = asked(relays, 0)
        for relay in held:
            relays.granted(relay, ("way",), 1000, 0)
        relays.lost(held[0], 100)
        relays.lost(held[1], 101)
        assert sorted(asked(relays, 101)) == sorted(held)
        relays.failed(held[0], 105)  # this one was gone after all
        (other,) = asked(relays, 105)
        assert other not in held
