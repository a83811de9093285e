"""`fallow grid`: the utility's side. Asks all who trust its key to draw less, and takes that back."""

from __future__ import annotations

import os
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter, validators

from ..node.book import BOOK, Book
from ..node.config import default_home
from ..node.grid.gossip import publish
from ..node.keys import load
from ..node.log import wall_ms
from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted
from ..protocol.errors import Code, ConfigError
from ..protocol.grid import ShedOrder
from ..protocol.limits import SHED_BYTES_MAX, WATTS_MAX
from .environment import AsJson, Bootstrap, bootstrap_addresses, usable, usable_home
from .node import seconds_of
from .output import line, print_json, progress, remark

PUBLISHED: Final = 24
"""Of those who trust the key, so many are told by us, and tell the others."""


async def shed(
    zone: Annotated[str, Parameter(help="The zone, by the name that its owners gave it.")],
    /,
    *,
    key: Annotated[Path, Parameter(help="The grid key's file; `fallow owner show FILE` makes one.")],
    cap: Annotated[
        int, Parameter(help="Watts that it may draw; 0: none.", validator=validators.Number(gte=0, lte=WATTS_MAX))
    ] = 0,
    span: Annotated[str, Parameter(name="--for", help="How long: 90s, 30m or 2h, a day at most.")] = "1h",
    at: Annotated[str | None, Parameter(help="When it begins, as 2026-11-28T17:00:00Z, within a week; now.")] = None,
    reason: Annotated[str, Parameter(help="Shown to the owners.")] = "",
    event: Annotated[
        str, Parameter(help="Your name for the cause: a later order of one name replaces the earlier, others stand beside it.")
    ] = "shed",
    priority: Annotated[
        int, Parameter(help="0 is the most urgent; the lowest in force decides.", validator=validators.Number(gte=0))
    ] = 0,
    cancel: Annotated[bool, Parameter(help="Nothing is asked any more under this name.")] = False,
    out: Annotated[Path | None, Parameter(help="Write the order there, for `fallow grid publish`, and tell nobody.")] = None,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> int:  # fmt: skip
    """Machines whose owners trust the key, and have a zone of this name, keep to the order until it ends."""
    with usable("--key", key):
        signer = load(key)
    now_ms = time.time_ns() // 1_000_000
    span_ms, start_ms = seconds_of(span) * 1000, _moment(at) if at else now_ms
    try:
        # A clock in milliseconds is a sequence that only grows, from whatever machine the utility signs.
        order = ShedOrder(zone, event, now_ms, cancel, priority, cap, start_ms, start_ms + span_ms, now_ms, reason)
    except ValueError as error:
        raise ConfigError(Code.BAD_CONFIG, f"No such order can be signed: {error}.") from None
    signed = sign(order, signer)
    if out:
        with usable("--out", out):
            out.write_bytes(signed.envelope)
        line(f"{out}: {_words(order)}")
        return 0
    return await _told(signed, bootstrap, json)


async def publish_file(
    order: Annotated[Path, Parameter(help="An order that `fallow grid shed --out` wrote.")],
    /,
    *,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> int:
    """The order is with those who trust its key: it may have been signed on a machine that has no network."""
    with usable("ORDER", order), order.open("rb") as stream:
        envelope = stream.read(SHED_BYTES_MAX + 1)
    signed = verify_any_signer_untrusted(ShedOrder, envelope, bytes_max=SHED_BYTES_MAX)
    return await _told(signed, bootstrap, json)


async def _told(order: Signed[ShedOrder], bootstrap: str | None, as_json: bool) -> int:
    """1 if nobody took it."""
    from ..node.network.mesh import open_network
    from ..node.network.table_rules import profile_rules

    given = bootstrap_addresses(bootstrap)
    with usable_home(), closing(Book(default_home() / BOOK, wall_ms)) as book:
        known = book.ways_in()
    with progress("looking for those who trust the key"):
        async with open_network(
            os.urandom(32), [], given, profile_rules(wall_ms), mode="client", known=known
        ) as network:
            took, found = await publish(network, order, PUBLISHED)
    if as_json:
        print_json({"order": order.id.hex(), "key": order.signer.hex(), "took": took, "found": found})
    elif took:
        line(f"{_words(order.record)}; {took} of {min(found, PUBLISHED)} machines asked took it, and pass it on")
    if not took:
        remark(
            f"Nobody took it: {found} machines were found that have {order.signer.hex()[:16]}... among their `grid.keys`. "
            "Send it again as long as it holds."
        )
    return 0 if took else 1


def _moment(written: str) -> int:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise ConfigError(Code.BAD_CONFIG, f"--at: {written[:40]!r} is no time such as 2026-11-28T17:00:00Z.") from None
    return round((at if at.tzinfo else at.astimezone()).timestamp() * 1000)


def _words(order: ShedOrder) -> str:
    start, end = (
        datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") for ms in (order.start_ms, order.end_ms)
    )
    what = (
        "asks for nothing any more" if order.cancelled else f"draws at most {order.cap_w} W from {start} to {end} UTC"
    )
    return f"zone {order.zone} {what} ({order.event})"
