"""The name of every stream that this implementation opens and serves."""

from __future__ import annotations

from .versions import protocol_id

JOB_PROTOCOL = protocol_id("job", 1)
"""Jobs: one order, and all that follows it."""
PROFILE_PROTOCOL = protocol_id("profile", 1)
"""Who a node is, and what it can do now ([page 02](02-discovery.md))."""
BLOB_PROTOCOL = protocol_id("blob", 1)
"""Content by its hash ([page 02](02-discovery.md))."""
VOUCHER_PROTOCOL = protocol_id("voucher", 1)
"""What is still owed for a stream that was lost ([page 05](05-payment.md))."""
CONTROL_PROTOCOL = protocol_id("control", 1)
"""Questions under the other protocols, each with one answer, many side by side ([page 11](11-network.md))."""
PROBE_PROTOCOL = protocol_id("probe", 1)
"""How long it takes there and back, and what one node has measured of the other ([page 02](02-discovery.md))."""
RATE_PROTOCOL = protocol_id("rate", 1)
"""How much gets through between two nodes ([page 02](02-discovery.md))."""
VERDICT_PROTOCOL = protocol_id("verdict", 1)
"""A verifier's word on a verdict ([page 04](04-assurance.md))."""
GROUND_PROTOCOL = protocol_id("ground", 1)
"""Why something that is held is not owed any more ([page 05](05-payment.md))."""
SHED_PROTOCOL = protocol_id("shed", 1)
"""Shed orders, from one who trusts a grid key to the next ([page 06](06-grid.md))."""
FEEDER_PROTOCOL = protocol_id("feeder", 1)
"""Rosters of one feeder, and leases between its members ([page 06](06-grid.md))."""
DISPUTE_PROTOCOL = protocol_id("dispute", 1)
"""Claims between the two sides of an order, and what judges decided ([page 04](04-assurance.md))."""
EVIDENCE_PROTOCOL = protocol_id("evidence", 1)
"""Faults that prove themselves, passed on ([page 04](04-assurance.md))."""
MEANS_PROTOCOL = protocol_id("means", 1)
"""What settles a debt on a rail ([page 05](05-payment.md))."""
PROTOCOLS = (
    JOB_PROTOCOL, PROFILE_PROTOCOL, BLOB_PROTOCOL, VOUCHER_PROTOCOL, CONTROL_PROTOCOL, PROBE_PROTOCOL, RATE_PROTOCOL,
    VERDICT_PROTOCOL, GROUND_PROTOCOL, SHED_PROTOCOL, FEEDER_PROTOCOL, DISPUTE_PROTOCOL, EVIDENCE_PROTOCOL, MEANS_PROTOCOL,
)  # fmt: skip
"""All that this implementation speaks."""
