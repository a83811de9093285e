"""`python -m fallow.node.grid.operator FILE --key KEY --out ROSTER`: a feeder's operator signs a roster.

    feeder = "t-17"
    epoch = 1                                   # higher in each later roster
    cap_w = 120000
    begins = 2026-12-01T00:00:00+01:00
    days = 7
    [[members]]
    peer = "12D3KooW..."                        # as `fallow node status` prints it
    guaranteed_w = 4000

The key is made if it is not there; its public half, which the members' owners put in `grid.feeder.grid_key`, is printed.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ...protocol.envelope import sign
from ...protocol.errors import FallowError, RemoteProtocolError
from ...protocol.grid import FeederMember, FeederRoster
from ...protocol.identity import peer_key_untrusted
from ...protocol.limits import ROSTER_MEMBERS_MAX, WATTS_MAX
from ..keys import load_or_create
from ..settings import SettingError, bad, integer, located, number, only, tables_of, text

DAY_MS = 86_400_000
EPOCH_MAX = 2**62


def main(arguments: Sequence[str] | None = None) -> int:
    """The roster is in the file. 1, with a sentence, if it would be none."""
    parser = argparse.ArgumentParser(
        prog="python -m fallow.node.grid.operator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="what the roster says, as TOML")
    parser.add_argument("--key", type=Path, required=True, help="the grid key's file; made if it is not there")
    parser.add_argument(
        "--out", type=Path, required=True, help="where the signed roster goes: for `grid.feeder.roster`"
    )
    options = parser.parse_args(arguments)
    try:
        source = options.file.read_text("utf-8")
        try:
            record = read_roster(tomllib.loads(source))
        except SettingError as error:
            raise located(error, options.file, source) from None
        key = load_or_create(options.key)
        scratch = options.out.with_name(f".{options.out.name}")
        scratch.write_bytes(sign(record, key).envelope)
        scratch.replace(options.out)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, FallowError) as error:
        print(f"error: {error.message if isinstance(error, FallowError) else error}", file=sys.stderr)
        return 1
    print(f'{options.out}: {len(record.members)} members; grid_key = "{bytes(key.verify_key).hex()}"')
    return 0


def read_roster(table: Mapping[str, object]) -> FeederRoster:
    """The roster that the table says. Raises `SettingError`."""
    only(table, ("feeder", "epoch", "cap_w", "begins", "days", "members"))
    begins = table.get("begins")
    if not isinstance(begins, datetime) or begins.tzinfo is None:
        raise bad("begins", "must be a date and time with its zone, 2026-12-01T00:00:00+01:00 say")
    members = [
        _member(each, f"members[{i}].") for i, each in enumerate(tables_of(table, "members", ROSTER_MEMBERS_MAX))
    ]
    begins_ms = int(begins.timestamp() * 1000)
    ends_ms = begins_ms + round(number(table, "days", 7, 0.01, 7) * DAY_MS)
    feeder, cap_w = text(table, "feeder", most=64), integer(table, "cap_w", 0, 0, WATTS_MAX)
    if not feeder or not members:
        raise bad("members" if feeder else "feeder", "must be set")
    try:
        return FeederRoster(
            feeder, integer(table, "epoch", 1, 0, EPOCH_MAX), cap_w,
            tuple(sorted(members, key=lambda member: member.key)), begins_ms, ends_ms,
        )  # fmt: skip
    except ValueError as error:
        raise bad("members", f"cannot be so: {error}") from None


def _member(table: Mapping[str, object], at: str) -> FeederMember:
    only(table, ("peer", "guaranteed_w"), at)
    try:
        key = peer_key_untrusted(text(table, "peer", "", at))
    except RemoteProtocolError:
        raise bad(at + "peer", "must be a node's peer id, as `fallow node status` prints it") from None
    return FeederMember(key, integer(table, "guaranteed_w", 0, 0, WATTS_MAX, at))


if __name__ == "__main__":
    sys.exit(main())
