"""`fallow audits`: what this client's own checks say of nodes."""

from __future__ import annotations

from contextlib import closing

from ..node.config import default_home
from ..node.trust import TrustList
from ..protocol.identity import EXECUTOR, cid, peer_id, short
from ..verifier.audits import MILLION, NEWCOMER, audit_ppm, spot_ppm
from .environment import AsJson
from .output import print_json, remark, table

FREE_UCR = 10**15
"""More than was ever held: what the record alone comes to."""


def audits(*, json: AsJson = False) -> None:
    """One line for each node, bundle, precision and role: checked results in a row, and the rate that follows from them.

    The rate is the least one: where too little of a node's pay can be held back, more of its windows are checked.
    """
    from ..client.history import HISTORY, History

    home = default_home()
    names = {entry.cid: entry.name for entry in TrustList.load(home).entries.values()}
    if not (home / HISTORY).exists():
        standings, faults = [], []
    else:
        with closing(History(home / HISTORY)) as history:
            standings, faults = history.standings(), history.all_faults()
    rows = []
    for one in standings:
        rate = audit_ppm(one.valid, 0, FREE_UCR) if one.role == EXECUTOR else spot_ppm(one.valid)
        bundle = names.get(cid(one.subject.bundle), cid(one.subject.bundle))
        rows.append((one, bundle, rate))
    if json:
        print_json(
            {
                "standings": [
                    {
                        "node": peer_id(one.subject.node), "owner": one.subject.owner.hex(), "bundle": bundle,
                        "precision": one.subject.precision, "role": one.role, "valid_in_a_row": one.valid,
                        "checked": one.checked, "rate_ppm": rate, "newcomer": one.valid < NEWCOMER,
                    }
                    for one, bundle, rate in rows
                ],
                "faults": [
                    {"node": peer_id(node), "owner": owner.hex(), "reason": reason, "at_ms": at_ms}
                    for owner, node, reason, at_ms in faults
                ],
            }
        )  # fmt: skip
        return
    if not rows and not faults:
        return remark("Nothing was checked from here yet.")
    table(
        ("node", "owner", "bundle", "precision", "role", "in a row", "checked from now on"),
        [
            (
                short(one.subject.node), one.subject.owner.hex()[:8], bundle, one.subject.precision, one.role,
                str(one.valid), f"{100 * rate / MILLION:.0f} % at least",
            )
            for one, bundle, rate in rows
        ],
    )  # fmt: skip
    for owner, node, reason, _ in faults:
        remark(f"found at fault: {short(node)} of owner {owner.hex()[:8]}: {reason}")
