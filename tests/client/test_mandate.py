"""A verifier that runs for weeks: its mandate, which lasts for seven days, is a newer one in time, and its decisions count."""

from __future__ import annotations

from pathlib import Path

import trio
from nacl.signing import SigningKey
from trio.testing import MockClock

from fallow.node.config import Config
from fallow.node.mandates import MANDATE, RENEW_MS, Authority, current_mandate, keep_current
from fallow.protocol.envelope import Signed
from fallow.protocol.grounds import is_verifier
from fallow.protocol.identity import VERIFIER, Mandate
from fallow.protocol.limits import MANDATE_MS_MAX

NOW_MS = 1_790_000_000_000
HOUR_S = 3600
WEEKS = 3


async def test_a_verifier_renews_its_mandate_before_it_ends(tmp_path: Path, autojump_clock: MockClock) -> None:
    node, authority = bytes(SigningKey.generate().verify_key), Authority(*_owner())
    config = Config(tmp_path, (), tmp_path, tmp_path, tmp_path / "owner.key", roles=(VERIFIER,))
    held: list[Signed[Mandate]] = []

    def now_ms() -> int:
        return NOW_MS + int(trio.current_time() * 1000)

    start = now_ms()
    held.append(current_mandate(config, node, authority, start))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_current, config, node, authority, now_ms, held.append)
        for _ in range(WEEKS * 7 * 24):
            await trio.sleep(HOUR_S)
            mandate = held[-1]
            assert is_verifier(mandate, node, now_ms()), "a decision signed now would bind nobody"
            assert mandate.record.expires_ms - now_ms() > RENEW_MS - 2 * HOUR_S * 1000, (
                "who sleeps for a day has one that lasts"
            )
        nursery.cancel_scope.cancel()
    different = list(dict.fromkeys(one.id for one in held))
    assert WEEKS <= len(different) <= WEEKS * MANDATE_MS_MAX // (MANDATE_MS_MAX - RENEW_MS) + 1, "no more than it needs"
    epochs = [one.record.epoch for one in dict.fromkeys(held)]
    assert epochs == sorted(set(epochs)), "two of one epoch would be fraud"
    assert (tmp_path / MANDATE).read_bytes() == held[-1].envelope, "a restart goes on with it"
    assert not is_verifier(held[0], node, now_ms())


def _owner() -> tuple[bytes, SigningKey]:
    key = SigningKey.generate()
    return bytes(key.verify_key), key
