"""The shed orders that this machine took of the grid keys that its owner trusts, and what they ask of its zones now.

Zones are the owner's own names. Orders of other zones are kept too, as long as there is room: others may need them passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final

from blake3 import blake3

from ...protocol.codec import decode_untrusted, encode
from ...protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.grid import ShedOrder, check_shed_order, kept_until_ms, zone_cap_w
from ...protocol.limits import SHED_BYTES_MAX, SHED_ORDERS_MAX, SKEW_MS
from ..durable import put
from ..log import EventLog, wall_ms
from ..machine import boot_ms
from ..rules.asked import Asked, Cap, together, until, words
from ..rules.hours import HOUR_MS, Now

STATE: Final = "shed-orders.cbor"
OWN_MAX: Final = SHED_ORDERS_MAX // 4
"""Of one key, for the owner's own zones: whatever else the key signs, there is room for them."""
OTHERS_MAX: Final = SHED_ORDERS_MAX - OWN_MAX
SAME_MAX: Final = 4
"""Of one sequence, which an honest key signs once: all stand, and more would prove nothing more."""
TOLD_MAX: Final = 16

Place = tuple[bytes, str, str]
"""Grid key, zone, event."""


class Orders:
    """The latest of each grid key, zone and event, over restarts."""

    def __init__(self, keys: Sequence[bytes], zones: Sequence[str], state: Path, log: EventLog) -> None:
        self.keys: Final = tuple(keys)
        self.zones: Final = tuple(zones)
        self._path = state / STATE
        self._log = log
        self._kept: dict[Place, list[Signed[ShedOrder]]] = {}
        self._ids: dict[bytes, Signed[ShedOrder]] = {}
        self._asked: dict[int, tuple[float, float, Asked]] = {}
        """What is asked by one of the clocks: from when to when by it that holds."""
        self._ahead_ms: dict[bytes, int] = {}
        """By orders' ids: the wall clock less the one that nobody sets, as it was when the order was taken."""
        self._load()

    def take_untrusted(self, envelope: bytes, grid: bytes, now_ms: int) -> bool:
        """Whether the order, said to be of this grid key, is news; if so, it counts from now on.

        Raises `RemoteProtocolError` for what is no order of the key, or cannot matter any more (G-6 to G-8).
        """
        if grid not in self.keys or claimed_signer_untrusted(envelope, bytes_max=SHED_BYTES_MAX) != grid:
            raise RemoteProtocolError(Code.BAD_SIGNATURE, "The shed order is not by the grid key that it should be.")
        if self.knows(envelope):  # [IGNORE] it is known
            return False
        order = verify_untrusted(ShedOrder, envelope, signer=grid, bytes_max=SHED_BYTES_MAX)
        check_shed_order(order, self.keys, now_ms)
        self.forget(now_ms)
        return self._admit(order, now_ms)

    def _admit(self, order: Signed[ShedOrder], now_ms: int) -> bool:
        """Whether the order, which is good, is news."""
        grid, record = order.signer, order.record
        place = grid, record.zone, record.event
        before = self._kept.get(place, [])
        if before and record.sequence < before[0].record.sequence:  # [IGNORE] it was replaced
            return False
        same = before if before and record.sequence == before[0].record.sequence else []
        if len(same) >= SAME_MAX or any(each.record == record for each in same):  # [IGNORE] it says nothing new
            return False
        if not before and self._full(grid, own=record.zone in self.zones):
            self._log.write("shed_order_left_out", zone=record.zone, why=f"more than {SHED_ORDERS_MAX} of one grid key")
            return False  # [IGNORE] there is no room
        for each in before if not same else []:
            del self._ids[each.id], self._ahead_ms[each.id]
        self._kept[place] = [*same, order]
        self._ids[order.id] = order
        self._ahead_ms[order.id] = now_ms - boot_ms()
        self._asked = {}
        return True

    def note(self, envelope: bytes) -> None:
        """An order that was taken is in the log; written when it is acted upon, for the disk may hang."""
        if order := self._ids.get(blake3(envelope).digest()):
            record = order.record
            self._log.write(
                "shed_order",
                zone=words(record.zone),
                cause=words(record.event),
                cap_w=record.cap_w,
                sequence=record.sequence,
            )

    def knows(self, envelope: bytes) -> bool:
        """Whether it is one of those kept."""
        return blake3(envelope).digest() in self._ids

    def of(self, grid: bytes) -> dict[bytes, bytes]:
        """The envelopes of a key's orders, by their ids."""
        return {id_: order.envelope for id_, order in self._ids.items() if order.signer == grid}

    def asked(self, now: Now) -> Asked:
        """What holds in the owner's zones at this moment. If somebody has set the clock since an order was taken, it holds by
        the clock as it was, too: of two that disagree, one would end a stop order that is in force."""
        clocks = [now.wall_ms - now.ms]
        for ahead_ms in sorted(set(self._ahead_ms.values())):
            if all(abs(ahead_ms - other_ms) > SKEW_MS for other_ms in clocks):
                clocks.append(ahead_ms)
        return together(self._at(replace(now, wall_ms=now.ms + each), which) for which, each in enumerate(clocks))

    def _at(self, now: Now, which: int) -> Asked:
        """Kept until something of it changes, or the hour does: the rules ask many times a second."""
        kept = self._asked.get(which)
        if kept is None or not kept[0] <= now.wall_ms < kept[1]:
            stops: list[str] = []
            caps: list[Cap] = []
            for zone in self.zones:
                cap_w = zone_cap_w(self._ids.values(), zone, now.wall_ms)
                if cap_w is not None:
                    why = self._why(zone, cap_w, now)
                    stops += [f"the grid asks to stop {why}"] if cap_w == 0 else []
                    caps += [(float(cap_w), f"the grid asks for less {why}")] if cap_w else []
            until_ms = min(self._changes_ms(now.wall_ms), now.wall_ms + HOUR_MS)
            kept = self._asked[which] = now.wall_ms, until_ms, Asked(tuple(stops), tuple(caps))
        return replace(kept[2], changes_in_ms=kept[1] - now.wall_ms)

    def heard(self, now: Now) -> list[str]:
        """What is asked, in words for the owner."""
        own = [order.record for order in self._ids.values() if order.record.zone in self.zones]
        coming = sorted((record for record in own if record.end_ms > now.wall_ms), key=lambda record: record.start_ms)
        lines = [
            f"zone {words(record.zone)}: at most {record.cap_w} W {until(record.end_ms, now)}"
            + (f", beginning {_later(record.start_ms, now)}" if record.start_ms > now.wall_ms else "")
            + (", cancelled" if record.cancelled else "")
            + (f" ({words(record.reason)})" if record.reason else "")
            for record in coming[:TOLD_MAX]
        ]
        zones = ", ".join(words(zone) for zone in self.zones)
        return [f"shed orders of {len(self.keys)} grid keys for {zones}: {len(own)} known", *lines]

    def save(self) -> None:
        """A restart finds them. Blocks. A full disk costs what a restart would find, and nothing else."""
        content = encode([order.envelope for order in list(self._ids.values())])
        try:
            put(self._path, content)
        except OSError as error:
            self._log.write("grid_state_lost", why=str(error.strerror))

    def _load(self) -> None:
        """Those that still matter, of the keys that are trusted now; a damaged file says nothing."""
        bytes_max = len(self.keys) * SHED_ORDERS_MAX * (SHED_BYTES_MAX + 16)
        try:
            with self._path.open("rb") as stream:
                held = decode_untrusted(stream.read(bytes_max + 1), bytes_max=bytes_max)
        except FileNotFoundError:
            return
        except (OSError, RemoteProtocolError) as error:
            self._log.write("grid_state_lost", why=str(error)[:200])
            return
        for envelope in held if isinstance(held, list) else []:
            with suppress(RemoteProtocolError):
                if isinstance(envelope, bytes):
                    self._restore(envelope)
        self.forget(wall_ms())

    def _restore(self, envelope: bytes) -> None:
        """It counts again, if its key is trusted still; by a clock that is not set yet it may be from tomorrow."""
        signer = claimed_signer_untrusted(envelope, bytes_max=SHED_BYTES_MAX)
        if signer in self.keys:
            order = verify_untrusted(ShedOrder, envelope, signer=signer, bytes_max=SHED_BYTES_MAX)
            self._admit(order, wall_ms())

    def _full(self, grid: bytes, *, own: bool) -> bool:
        held = sum((order.record.zone in self.zones) is own for order in self._ids.values() if order.signer == grid)
        return held >= (OWN_MAX if own else OTHERS_MAX)

    def forget(self, now_ms: int) -> None:
        """What cannot matter any more, by either clock."""
        for id_, order in list(self._ids.items()):
            if min(now_ms, boot_ms() + self._ahead_ms[id_]) > kept_until_ms(order.record):
                del self._ids[id_], self._ahead_ms[id_]
                place = order.signer, order.record.zone, order.record.event
                self._kept[place] = [each for each in self._kept[place] if each.id != id_]
                if not self._kept[place]:
                    del self._kept[place]

    def _changes_ms(self, now_ms: int) -> float:
        """When a cap may begin or end by the rule of `possible_instants`."""
        own = [
            order.record
            for order in self._ids.values()
            if order.record.zone in self.zones and not order.record.cancelled
        ]
        edges = {edge + slack for each in own for edge in (each.start_ms, each.end_ms) for slack in (-SKEW_MS, SKEW_MS)}
        return min((edge for edge in edges if edge > now_ms), default=inf)

    def _why(self, zone: str, cap_w: int, now: Now) -> str:
        """Until when, and by which orders."""
        near = [
            order.record
            for order in self._ids.values()
            if order.record.zone == zone and order.record.cap_w == cap_w and not order.record.cancelled
            and order.record.start_ms <= now.wall_ms + SKEW_MS and now.wall_ms - SKEW_MS < order.record.end_ms
        ]  # fmt: skip
        end_ms = max(record.end_ms for record in near)
        said = next((f": {words(record.reason)}" for record in near if record.reason), "")
        return f"{until(end_ms + SKEW_MS, now)} (shed order for {words(zone)}{said})"


def _later(start_ms: int, now: Now) -> str:
    minutes = (start_ms - now.wall_ms) / 60_000
    return f"in {minutes:.0f} min" if minutes < 120 else f"in {minutes / 60:.0f} h"
