"""One example of every signed record and of every message, and the keys that sign them."""

from __future__ import annotations

from nacl.signing import SigningKey

from fallow.protocol.bundle import Carried, Cheat, File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.checks import Attestation, Finding, Verdict
from fallow.protocol.disputes import Decision, Dispute, Hearing, Plea
from fallow.protocol.evidence import Evidence
from fallow.protocol.grid import FeederLease, FeederMember, FeederRoster, ShedOrder
from fallow.protocol.holding import Held
from fallow.protocol.identity import Issuer, Mandate, WorkerKey
from fallow.protocol.orders import Accept, Continuation, JobOrder
from fallow.protocol.payment import Channel, Voucher
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.receipts import Receipt
from fallow.protocol.witness import Witness
from fallow.protocol.work import Parameters

KEY = SigningKey(b"\x01" * 32)
OTHER = SigningKey(b"\x02" * 32)
A, B = bytes(KEY.verify_key), bytes(OTHER.verify_key)
HASH = b"\x07" * 32
NOW_MS = 1_790_000_000_000

PRICE = Price(HASH, "generate", 10, 1, 4, 0)
FILE = File(3, (HASH,))

RECORDS = (
    Issuer(A, HASH, 1, NOW_MS, NOW_MS + 1000),
    Mandate(B, A, ("executor", "checker"), 1, NOW_MS, NOW_MS + 1000, None),
    WorkerKey(A, HASH, NOW_MS, NOW_MS + 1000),
    CapabilityProfile(
        A, HASH, 5, NOW_MS, NOW_MS + 1000, "vehicle", "u4p", ("executor",), ("cpu/avx2",),
        (ServedBundle(HASH, ("generate", "score"), "float32/cpu", 400_000, 30_000, 0),), (PRICE,), 4, 300_000,
        86_400_000, (B,),
    ),
    ConnectivityProfile(
        A, 5, NOW_MS, NOW_MS + 1000, ("/ip4/127.0.0.1/tcp/1",), ("wifi",), False, 3, 20_000, 90_000, 5_000, 0, None, None
    ),
    Manifest(
        "tiny", "llama", "Apache-2.0", "made up", ("generate", "score"), FILE, ("a", "b"),
        (Carried("float32", (1, 64, 3), 1),), (Tensor("image", "uint8", (8, 8)),), (Tensor("y", "float32", (2,)),),
        (Program("decode", "decode", 4, 1, 64, FILE, 100, 4096),), FILE, "{{ x }}", 64, (2,),
        Tolerance(100, 1000, 500, 5000, 0, (Cheat("int8-weights", 200, 5000),), "guess"),
    ),
    Channel(A, B, HASH, "ledger", 1000, b"n" * 16, NOW_MS, NOW_MS + 1000, 60_000),
    JobOrder(
        HASH, "generate", Parameters(48, 700, 900_000, 7), 1, 40, 48, HASH, B, HASH, PRICE, HASH, 500, NOW_MS, b"m" * 16,
        20_000, 5_000, HASH, 250_000, 60_000, (A, B), Continuation(HASH, 60), None,
    ),
    Accept(HASH, HASH, NOW_MS, "float32/cpu"),
    Receipt(HASH, 1, HASH, 32, 3, HASH, (-5, -6, -7), "float32/cpu", 77, "final"),
    Voucher(HASH, HASH, 70, (Held(4, NOW_MS), Held(1, NOW_MS + 1)), 2),
    Attestation(HASH, HASH, "teacher-forced", (-5, -6, -7), (0, 0, 0), (1, 2, 3), "float32/cpu"),
    Verdict(
        HASH, HASH, "quorum:2/3", HASH, (B,), "accepted",
        (Finding(A, B, "executor", "upheld", "", (HASH,), (HASH,), 77, 0),),
    ),
    Evidence("equivocation", A, (b"one", b"other"), "two receipts for one window"),
    ShedOrder("depot", "heat", 1, False, 2, 5_000, NOW_MS, NOW_MS + 1000, NOW_MS, "a hot evening"),
    FeederRoster("t-17", 3, 9_000, (FeederMember(B, 4_000), FeederMember(A, 5_000)), NOW_MS, NOW_MS + 1000),
    FeederLease(HASH, A, B, 1_500, NOW_MS, NOW_MS + 1000, b"n" * 16),
    Witness(A, B, b"mandate", NOW_MS, NOW_MS + 1000, 24, 20_000, 90_000, 5_000, 0),
    Dispute("wrong", B, HASH, HASH, 90, 60_000, NOW_MS, HASH),
    Plea(HASH, "owns", HASH, HASH, "none"),
    Hearing(HASH, (b"one", b"other")),
    Decision(HASH, "upheld", B, 0, 77, 90, "its figures differ"),
)  # fmt: skip
