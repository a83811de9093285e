"""Channels, evidence, and what the grid asks: whatever several signed records make together."""

from __future__ import annotations

from typing import Any

from fallow.protocol.channel import ChannelState, Ground, Party
from fallow.protocol.claims import Claim, claim_of
from fallow.protocol.envelope import Signed
from fallow.protocol.errors import ProtocolError
from fallow.protocol.feeders import allowance_w, check_lease, check_roster, over_lent
from fallow.protocol.grid import check_shed_order, kept_until_ms, zone_cap_w
from fallow.protocol.payment import Voucher
from fallow.protocol.records import check_evidence_untrusted
from fallow.protocol.schema import to_map
from tests.spec.readers.records import Fields, signed


def channel(party: str, channel: bytes, steps: list[Fields], now_ms: int) -> Fields:
    state = ChannelState(Party(party), signed("channel", channel))
    claims: dict[bytes, Claim] = {}
    vouchers: list[Fields] = []
    for at, step in enumerate(steps):
        try:
            given = _step(state, claims, **step)
        except ProtocolError as error:
            return {"code": str(error.code), "at": at}
        if given is not None:
            vouchers.append(to_map(given))
    state.expire(now_ms)
    return {
        "vouchers": vouchers,
        "phase": str(state.phase),
        "promised_ucr": state.promised_ucr,
        "forfeited_ucr": state.forfeited_ucr,
        "payable_ucr": state.payable_ucr(now_ms),
        "held_ucr": state.held_ucr(now_ms),
        "deadline_ms": state.deadline_ms(),
    }


def _step(state: ChannelState, claims: dict[bytes, Claim], event: str, now_ms: int, **given: Any) -> Voucher | None:
    """The voucher that the step gave, which is then as good as signed."""
    claim = claim_of(**given["claim"]) if "claim" in given else Claim(0)
    match event:
        case "pay":
            voucher = state.pay(given["receipt"], claim, now_ms)
            claims[voucher.receipt] = claim
        case "restate":
            voucher = state.restate(now_ms)
        case "yield":
            ground = Ground(**given["ground"])
            voucher = state.yielding(ground, given["ucr"], now_ms)
            state.yielded(ground, given["ucr"], Signed(voucher, state.channel.signer, b""))
            return voucher
        case "receive":
            state.receive(signed("voucher", given["voucher"]), claim, now_ms)
            return None
        case "present":
            state.present(signed("voucher", given["voucher"]), now_ms)
            return None
        case "forfeit":
            state.forfeit(Ground(**given["ground"]), given["ucr"], now_ms)
            return None
        case "close":
            state.close(Party(given["by"]), now_ms)
            return None
        case _:
            assert event == "expire"
            state.expire(now_ms)
            return None
    state.paid(Signed(voucher, state.channel.signer, b""), claims[voucher.receipt])
    return voucher


def evidence(evidence: bytes) -> Fields:
    proven = check_evidence_untrusted(signed("evidence", evidence).record)
    return {"fault": str(proven.fault), "accused": proven.accused}


def grid(now_ms: int = 0, **given: Any) -> Fields:
    match given:
        case {"zone": zone}:
            return {"cap_w": zone_cap_w(_all("shed-order", given["orders"]), zone, now_ms)}
        case {"member": member}:
            rosters, leases = _all("feeder-roster", given["rosters"]), _all("feeder-lease", given["leases"])
            return {"allowance_w": allowance_w(rosters, leases, member, now_ms)}
        case {"lender": lender}:
            proof = over_lent(_all("feeder-lease", given["leases"]), signed("feeder-roster", given["roster"]), lender)
            return {"proof": [lease.id for lease in proof]}
        case {"order": envelope}:
            order = signed("shed-order", envelope)
            check_shed_order(order, given["grid_keys"], now_ms)
            return {"kept_until_ms": kept_until_ms(order.record)}
        case {"lease": envelope}:
            roster = signed("feeder-roster", given["roster"])
            check_lease(signed("feeder-lease", envelope), roster, _all("feeder-lease", given["known"]), now_ms)
        case _:
            check_roster(signed("feeder-roster", given["roster"]), given["grid_key"], given["feeder"], now_ms)
    return {}


def _all(record: str, envelopes: list[bytes]) -> list[Signed[Any]]:
    return [signed(record, envelope) for envelope in envelopes]
