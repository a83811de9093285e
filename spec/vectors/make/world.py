"""Who takes part in the vectors, and one example of every record: small, but within all rules."""

from __future__ import annotations

from typing import Any

from .cose import Signer, hashed

Fields = dict[str, Any]

NOW_MS = 1_790_000_000_000
SKEW_MS = 120_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
HOLD_MS_MAX = 7 * DAY_MS

OWNER, NODE, CLIENT, OTHER, ISSUER, GRID, PUBLISHER = map(Signer, range(1, 8))
HASH = hashed(b"something")
NONCE = b"sixteen bytes it"


def name(word: str) -> bytes:
    """A hash to stand for something that no case opens."""
    return hashed(word.encode())


def price(**changes: Any) -> Fields:
    """The price of one entry."""
    fields = {"bundle": HASH, "entry": "generate", "call_ucr": 10, "input_token_ucr": 1, "output_token_ucr": 4}
    return {**fields, "checked_token_ucr": 2, **changes}


def issuer(**changes: Any) -> Fields:
    fields = {"owner": OWNER.key, "issuer": ISSUER.key, "epoch": 1}
    return {**fields, "not_before_ms": NOW_MS, "expires_ms": NOW_MS + 30 * DAY_MS, **changes}


def mandate(**changes: Any) -> Fields:
    fields = {"node": NODE.key, "owner": OWNER.key, "roles": ["executor", "checker"], "epoch": 3}
    return {**fields, "not_before_ms": NOW_MS, "expires_ms": NOW_MS + DAY_MS, **changes}


def worker_key(**changes: Any) -> Fields:
    fields = {"node": NODE.key, "hpke_key": name("an X25519 key")}
    return {**fields, "not_before_ms": NOW_MS, "expires_ms": NOW_MS + HOUR_MS, **changes}


def capability(**changes: Any) -> Fields:
    served = {
        "bundle": HASH, "entries": ["generate", "score"], "numerics_class": "float32/cpu",
        "input_tokens_per_s_milli": 400_000, "output_tokens_per_s_milli": 30_000, "calls_per_s_milli": 0,
    }  # fmt: skip
    return {
        "node": NODE.key, "mandate": HASH, "sequence": 5, "issued_ms": NOW_MS, "expires_ms": NOW_MS + 600_000,
        "kind": "vehicle", "region": "u4p", "roles": ["executor"], "accelerators": ["cpu/avx2"], "served": [served],
        "prices": [price()], "jobs_max": 4, "held_ppm_max": 300_000, "hold_ms_max": DAY_MS, "arbiters": [OTHER.key],
        **changes,
    }  # fmt: skip


def connectivity(**changes: Any) -> Fields:
    return {
        "node": NODE.key, "sequence": 5, "issued_ms": NOW_MS, "expires_ms": NOW_MS + 600_000,
        "addresses": ["/ip4/192.0.2.1/tcp/4001"], "link_kinds": ["wifi"], "metered": False, "vantage_peers": 3,
        "rtt_p50_us": 20_000, "rtt_p95_us": 90_000, "jitter_us": 5_000, "loss_ppm": 0, "up_kbit_per_s": 10_000,
        "down_kbit_per_s": 50_000, **changes,
    }  # fmt: skip


def witness(**changes: Any) -> Fields:
    """What NODE has measured of OTHER."""
    return {
        "witness": NODE.key, "subject": OTHER.key, "mandate": OWNER.sign("mandate", mandate()).whole,
        "issued_ms": NOW_MS, "expires_ms": NOW_MS + 600_000, "probes": 24, "rtt_p50_us": 20_000, "rtt_p95_us": 90_000,
        "jitter_us": 5_000, "loss_ppm": 0, **changes,
    }  # fmt: skip


def file_of(*chunks: bytes, length_bytes: int = 3) -> Fields:
    return {"length_bytes": length_bytes, "chunks": list(chunks) or [HASH]}


TOLERANCE: Fields = {
    "value_micro": 100, "gap_micro": 1_000, "mass_ppm": 500, "samples": 5_000, "false_reject_ppm": 0,
    "cheats": [{"name": "int8-weights", "samples": 200, "false_accept_ppm": 5_000}], "calibrated_by": "by hand",
}  # fmt: skip


def manifest(**changes: Any) -> Fields:
    program = {
        "name": "decode-4-64", "role": "decode", "slots": 4, "length": 1, "context": 64, "artifact": file_of(),
        "flops": 100, "memory_bytes": 4_096,
    }  # fmt: skip
    return {
        "name": "tiny", "family": "llama", "licence": "Apache-2.0", "provenance": "made up",
        "entries": ["generate", "score"], "weights": file_of(), "parameters": ["a", "b"],
        "state": [{"dtype": "float32", "shape": [2, 64, 3], "positions_axis": 1}, {"dtype": "float32", "shape": [5]}],
        "inputs": [], "outputs": [], "programs": [program], "tokenizer": file_of(),
        "chat_template": "{{ x }}", "context_tokens_max": 64, "end_tokens": [2], "tolerance": TOLERANCE, **changes,
    }  # fmt: skip


def channel(**changes: Any) -> Fields:
    return {
        "payer": CLIENT.key, "payee": NODE.key, "payout_owner": OWNER.key, "rail": "ledger",
        "credit_limit_ucr": 1_000, "nonce": NONCE, "opened_ms": NOW_MS, "expires_ms": NOW_MS + DAY_MS,
        "close_grace_ms": 60_000, **changes,
    }  # fmt: skip


PARAMETERS: Fields = {"max_tokens": 48, "temperature_milli": 700, "top_p_ppm": 900_000, "seed": 7}


def order(**changes: Any) -> Fields:
    priced = {name: changes[name] for name in ("bundle", "entry") if name in changes}
    return {
        "bundle": HASH, "entry": "generate", "parameters": PARAMETERS, "calls": 1, "input_tokens": 40,
        "planned_tokens": 48, "input_digest": HASH, "executor": NODE.key, "worker_key": HASH, "price": price(**priced),
        "channel": HASH, "amount_ucr_max": 500, "created_ms": NOW_MS, "nonce": NONCE, "first_chunk_ms_max": 20_000,
        "gap_ms_max": 5_000, "check_commitment": HASH, "held_ppm": 0, "hold_ms": 0, "candidates": [], **changes,
    }  # fmt: skip


def accept(**changes: Any) -> Fields:
    return {"order": HASH, "mandate": HASH, "clock_ms": NOW_MS, "numerics_class": "float32/cpu", **changes}


def receipt(**changes: Any) -> Fields:
    return {
        "order": HASH, "sequence": 0, "first_token": 0, "tokens": 3, "transcript": HASH,
        "values_micro": [-5, -6, -7], "numerics_class": "float32/cpu", "amount_ucr": 62, "end": "final", **changes,
    }  # fmt: skip


def voucher(**changes: Any) -> Fields:
    fields = {"channel": HASH, "receipt": HASH, "due_ucr": 70, "held": held((5, NOW_MS + DAY_MS)), "forfeited_ucr": 2}
    return {**fields, **changes}


def held(*parts: tuple[int, int]) -> list[Fields]:
    """What a voucher holds: micro-credits, and until when."""
    return [{"ucr": ucr, "release_at_ms": release_ms} for ucr, release_ms in parts]


def attestation(**changes: Any) -> Fields:
    return {
        "subject": HASH, "order": HASH, "method": "teacher-forced", "values_micro": [-5, -6, -7],
        "gaps_micro": [0, 0, 0], "masses_ppm": [1, 2, 3], "numerics_class": "float32/cpu", **changes,
    }  # fmt: skip


def finding(**changes: Any) -> Fields:
    return {
        "node": NODE.key, "owner": OWNER.key, "role": "executor", "standing": "upheld", "reason": "",
        "evidence": [HASH], "due_for": [HASH], "due_ucr": 77, "withheld_ucr": 0, **changes,
    }  # fmt: skip


def verdict(**changes: Any) -> Fields:
    return {
        "subject": HASH, "bundle": HASH, "policy": "quorum:2/3", "commitment_nonce": HASH, "anchors": [OTHER.key],
        "outcome": "accepted", "findings": [finding()], **changes,
    }  # fmt: skip


def evidence(**changes: Any) -> Fields:
    records = [b"one envelope", b"another"]
    return {"fault": "equivocation", "accused": NODE.key, "records": records, "note": "two receipts", **changes}


def shed_order(**changes: Any) -> Fields:
    return {
        "zone": "depot", "event": "heat", "sequence": 1, "cancelled": False, "priority": 2, "cap_w": 5_000,
        "start_ms": NOW_MS, "end_ms": NOW_MS + HOUR_MS, "issued_ms": NOW_MS - 60_000, "reason": "a hot evening",
        **changes,
    }  # fmt: skip


def members(*shares: tuple[Signer, int]) -> list[Fields]:
    """Members of a roster, in ascending order of their keys."""
    return [{"key": who.key, "guaranteed_w": watts} for who, watts in sorted(shares, key=lambda share: share[0].key)]


def roster(**changes: Any) -> Fields:
    return {
        "feeder": "t-17", "epoch": 3, "cap_w": 9_000, "members": members((NODE, 4_000), (OTHER, 5_000)),
        "not_before_ms": NOW_MS, "expires_ms": NOW_MS + DAY_MS, **changes,
    }  # fmt: skip


def lease(**changes: Any) -> Fields:
    return {
        "roster": HASH, "lender": NODE.key, "borrower": OTHER.key, "lent_w": 1_500, "not_before_ms": NOW_MS,
        "expires_ms": NOW_MS + HOUR_MS, "nonce": NONCE, **changes,
    }  # fmt: skip


def dispute(**changes: Any) -> Fields:
    return {
        "kind": "wrong", "accused": NODE.key, "order": HASH, "receipt": HASH, "fee_ucr": 90, "answer_ms": 60_000,
        "opened_ms": NOW_MS, "shown": HASH, **changes,
    }  # fmt: skip


def plea(**changes: Any) -> Fields:
    return {"dispute": HASH, "says": "owns", "shown": HASH, "commitment_nonce": HASH, "policy": "none", **changes}


def hearing(**changes: Any) -> Fields:
    said = OTHER.sign("plea", plea()).whole
    return {"dispute": HASH, "pleas": [said], **changes}


def decision(**changes: Any) -> Fields:
    return {
        "dispute": HASH, "outcome": "upheld", "loser": NODE.key, "due_ucr": 0, "withheld_ucr": 77, "fee_ucr": 90,
        "reason": "its figures differ", **changes,
    }  # fmt: skip


EXAMPLES: dict[str, tuple[Signer, Fields]] = {
    "issuer": (OWNER, issuer()),
    "mandate": (OWNER, mandate()),
    "capability-profile": (NODE, capability()),
    "connectivity-profile": (NODE, connectivity()),
    "worker-key": (NODE, worker_key()),
    "manifest": (PUBLISHER, manifest()),
    "channel": (CLIENT, channel()),
    "job-order": (CLIENT, order(candidates=[OWNER.key, OTHER.key], held_ppm=250_000, hold_ms=60_000)),
    "accept": (NODE, accept()),
    "receipt": (NODE, receipt()),
    "voucher": (CLIENT, voucher()),
    "attestation": (NODE, attestation()),
    "verdict": (CLIENT, verdict()),
    "evidence": (CLIENT, evidence()),
    "shed-order": (GRID, shed_order()),
    "feeder-roster": (GRID, roster()),
    "feeder-lease": (NODE, lease()),
    "witness": (NODE, witness()),
    "dispute": (CLIENT, dispute()),
    "plea": (NODE, plea()),
    "hearing": (CLIENT, hearing()),
    "decision": (OTHER, decision()),
}
"""Every signed record by its name: who signs the example, and its fields."""
