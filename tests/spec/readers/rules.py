"""Names, hashes, sums, and what a node or client holds against what it is shown."""

from __future__ import annotations

from typing import Any

from fallow.protocol.errors import ProtocolError
from fallow.protocol.grounds import could_judge
from fallow.protocol.identity import (
    Mandate,
    check_epoch,
    check_mandate,
    cid,
    cid_hash_untrusted,
    peer_id,
    peer_key_untrusted,
    salted_digest,
)
from fallow.protocol.job import Event, Job, Role
from fallow.protocol.names import profile_key, provider_key
from fallow.protocol.orders import JobOrder, Terms, check_order
from fallow.protocol.policy import Policy, check_commitment, draw
from fallow.protocol.prices import Price, Usage, amount_ucr
from fallow.protocol.profiles import ConnectivityProfile, check_profile
from fallow.protocol.published import check_published_untrusted
from fallow.protocol.receipts import Delivery
from fallow.protocol.schema import from_map_untrusted
from fallow.protocol.shards import population, safe_depth, shards_of
from fallow.protocol.versions import negotiate_untrusted
from fallow.protocol.witness import believed, check_witness_untrusted, heard_untrusted
from fallow.protocol.work import transcript_next, transcript_start
from tests.spec.readers.records import Fields, signed

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def identity(**given: Any) -> Fields:
    match given:
        case {"peer_id": text}:
            return {"key": peer_key_untrusted(text)}
        case {"cid": text}:
            return {"hash": cid_hash_untrusted(text)}
        case {"key": key}:
            return {"peer_id": peer_id(key), "did_key": _did_key(key)}
    return {"cid": cid(given["hash"])}


def _did_key(key: bytes) -> str:
    """Nothing here shows keys so; others' tools do."""
    number, text = int.from_bytes(b"\xed\x01" + key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return f"did:key:z{text}"


def names(**given: Any) -> Fields:
    match given:
        case {"depth": depth}:
            return {"shards": shards_of(given["node"], depth, given["now_ms"])}
        case {"found": found}:
            seen = (given["shard"], found, given["now_ms"])
            return {"population": population(*seen), "safe_depth": safe_depth(*seen)}
        case {"node": node}:
            return {"profile_key": profile_key(node)}
        case {"bundle": bundle}:
            return {"provider_key": provider_key(bundle, given["region"], given["shard"])}
    return {"protocol": negotiate_untrusted(given["service"], given["ours"], given["theirs"])}


def published(key: str, value: bytes, now_ms: int) -> Fields:
    check_published_untrusted(key, value, now_ms)
    return {}


def digest(**given: Any) -> Fields:
    match given:
        case {"policy": policy}:
            return {"commitment": check_commitment(given["nonce"], policy)}
    return {"digest": salted_digest(given["salt"], given["plaintext"])}


def transcript(salt: bytes, order: bytes, pieces: list[bytes]) -> Fields:
    last = start = transcript_start(salt, order)
    after = [last := transcript_next(last, piece) for piece in pieces]
    return {"start": start, "after": after}


def price(price: Fields, usage: dict[str, int], planned_tokens: int, end: str) -> Fields:
    read = from_map_untrusted(Price, price)
    return {"amount_ucr": amount_ucr(read, Usage(**usage), planned_tokens=planned_tokens, end=end)}


def policy(text: str) -> Fields:
    read = Policy.parse(text)
    assert str(read) == text
    return {"kind": read.kind, "k": read.k, "n": read.n, "ppm": read.ppm, "anchored": read.anchored}


def audit(nonce: bytes, receipt: bytes, policy: str) -> Fields:
    return {"checked": Policy.parse(policy).draws(nonce, receipt)}


def sortition(nonce: bytes, receipt: bytes, candidates: list[bytes], parties: list[bytes], count: int) -> Fields:
    return {"drawn": draw(nonce, receipt, candidates, parties, count)}


def mandate(mandate: bytes, node: bytes, now_ms: int, **given: Any) -> Fields:
    read = signed("mandate", mandate)
    if "created_ms" in given:
        return {"could_judge": could_judge(read, node, given["created_ms"], now_ms)}
    check_mandate(read, node, given["role"], now_ms)
    record: Mandate = read.record
    if "seen_epoch" in given:
        check_epoch(record, given["seen_epoch"])
    return {"owner": record.owner, "epoch": record.epoch}


def profile(profile: bytes, record: str, node: bytes, now_ms: int) -> Fields:
    read = signed(record, profile, node)
    check_profile(read, node, now_ms)
    return {"interactive": read.record.interactive} if isinstance(read.record, ConnectivityProfile) else {}


def witness(node: bytes, now_ms: int, **given: Any) -> Fields:
    if "witness" in given:
        return {"owner": check_witness_untrusted(given["witness"], node, now_ms).owner}
    heard = heard_untrusted(given["witnesses"], node, given["owner"], now_ms)
    found = believed(from_map_untrusted(ConnectivityProfile, given["profile"]), heard, given.get("own_rtt_us"))
    figures = {name: getattr(found, name) for name in ("rtt_p50_us", "rtt_p95_us", "jitter_us", "loss_ppm")}
    return {"figures": figures, "interactive": found.interactive}


def order(order: Fields, terms: Fields, now_ms: int) -> Fields:
    bundles = frozenset((bundle, entry) for bundle, entry in terms["bundles"])
    arbiters = frozenset(terms.get("arbiters", ()))
    prices = frozenset(from_map_untrusted(Price, price) for price in terms["prices"])
    read = Terms(**{**terms, "bundles": bundles, "arbiters": arbiters, "prices": prices})
    check_order(from_map_untrusted(JobOrder, order), read, now_ms)
    return {}


def job(
    role: str, first_chunk_ms_max: int, gap_ms_max: int, moves: list[Any], expire_at_ms: int | None = None
) -> Fields:
    played = Job(Role(role), first_chunk_ms_max, gap_ms_max, moves[0][0] if moves else 0)
    for at, (now_ms, sender, event) in enumerate(moves):
        try:
            (played.send if Role(sender) is played.role else played.receive)(Event(event), now_ms)
        except ProtocolError as error:
            return {"code": str(error.code), "at": at}
    if expire_at_ms is not None:
        played.expire(expire_at_ms)
    return {"state": str(played.state), "unpaid": played.unpaid, "deadline_ms": played.deadline_ms()}


def delivery(**given: Any) -> Fields:
    """As the client takes it in: a receipt for each window that is full, and one at the end."""
    ordered = signed("job-order", given["order"])
    start = transcript_start(given["salt"], ordered.id)
    count = Delivery(ordered, from_map_untrusted(Price, given["price"]), given["class"], start)
    receipts = [signed("receipt", envelope, ordered.record.executor) for envelope in given["receipts"]]
    due = iter(receipts)
    for piece in given["pieces"]:
        if count.window_full:
            count.received(next(due))
        count.add(piece["tokens"], piece["values_micro"], transcript_next(count.transcript, piece["piece"]))
    for receipt in due:
        count.received(receipt)
    return {"amount_ucr": count.amount_ucr}
