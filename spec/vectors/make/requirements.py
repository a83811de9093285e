"""Which cases prove which requirements of the pages."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

PROOFS: dict[str, tuple[str, ...]] = {
    # 00: notation
    "N-1": ("codec/*-integer", "codec/bytes", "codec/text*", "codec/map-by-length-then-bytes", "record/*-signed"),
    "N-2": (
        "codec/*-in-a*",
        "codec/*-in-two-bytes",
        "codec/*-in-eight-bytes",
        "codec/indefinite-*",
        "codec/keys-unsorted",
        "codec/longer-key-first",
        "codec/duplicate-*",
        "codec/*-key",
        "codec/text-not-utf8",
        "codec/text-surrogate",
        "codec/float*",
        "codec/tag",
        "codec/undefined",
        "codec/simple-value",
        "codec/*-64-bits*",
        "codec/*cut-short",
        "codec/trailing-byte",
        "codec/big-integer",
    ),
    "N-3": ("published/too-large",),
    "N-4": ("codec/sixteen-*", "codec/seventeen-*"),
    "N-5": ("message/cancel-fullest", "message/cancel-too-full"),
    "N-7": (
        "record/*-missing",
        "record/*-null",
        "record/*-wrong-type",
        "message/*-missing",
        "message/*-null",
        "plaintext/piece-null",
        "message/*-wrong-type",
        "plaintext/*-missing",
        "plaintext/work-*",
        "plaintext/input-*",
        "record/*-absent",
    ),
    "N-8": ("record/*-unknown*", "message/*-unknown", "plaintext/*-unknown", "envelope/payload-unknown-field"),
    "N-9": ("record/*-extended*", "envelope/extended", "message/cancel-extended", "plaintext/work-extended"),
    "N-10": ("mandate/*early", "mandate/*late", "profile/*early", "profile/*late", "order/*early", "order/*late"),
    # 01: identity
    "I-1": ("identity/key-*", "identity/peer-id-*"),
    "I-2": ("identity/hash-*", "identity/cid-*"),
    "I-3": ("record/*-signed",),
    "I-4": (
        "envelope/empty",
        "envelope/untagged",
        "envelope/*tag*",
        "envelope/trailing",
        "envelope/*-parts",
        "envelope/unprotected*",
        "envelope/detached",
        "envelope/payload-unsorted",
        "envelope/payload-trailing",
    ),
    "I-5": (
        "envelope/deprecated-algorithm",
        "envelope/no-key-id",
        "envelope/short-key-id",
        "envelope/header-*",
        "envelope/signature-too-*",
    ),
    "I-6": ("envelope/*-by-another",),
    "I-7": ("envelope/*-signed-as-*", "envelope/bit-of-*"),
    "I-8": (
        "envelope/payload-*-field",
        "envelope/payload-of-another",
        "envelope/payload-list",
        "envelope/payload-null",
    ),
    "I-9": ("envelope/extended", "envelope/*-verified"),
    "I-10": ("ed25519/*",),
    "I-14": (
        "record/mandate-longest",
        "record/mandate-too-long",
        "record/mandate-of-no-time",
        "record/mandate-backward",
        "record/issuer-*",
    ),
    "I-15": ("mandate/another-node", "mandate/another-role", "mandate/as-checker"),
    "I-16": ("mandate/by-owner", "mandate/by-the-node", "mandate/by-owner-with-issuer"),
    "I-17": ("mandate/by-issuer", "mandate/issuer-*"),
    "I-18": ("mandate/*-epoch-seen", "mandate/replaced"),
    "I-19": ("record/worker-key-longest", "record/worker-key-too-long"),
    # 02: discovery
    "D-3": ("published/*",),
    "D-7": (
        "profile/now",
        "profile/*early",
        "profile/*late",
        "profile/too-long",
        "profile/about-another",
        "profile/asked-for-another",
    ),
    "D-8": ("profile/link-*",),
    # 03: jobs
    "J-1": ("names/version-*",),
    "J-3": ("framing/too-large*", "framing/largest-length"),
    "J-4": ("message/empty", "message/list", "message/untold", "message/unknown-kind", "message/kind-not-text"),
    "J-5": ("price/*", "delivery/complete", "delivery/yielded", "delivery/call", "delivery/score"),
    "J-10": ("order/*",),
    "J-22": ("transcript/*", "digest/of-*"),
    "J-23": ("delivery/two-windows", "delivery/over-full"),
    "J-24": ("delivery/*",),
    "J-28": ("job/*-seen-by-*", "job/whole-*", "job/stopped", "job/yielded", "job/declined", "job/settle-twice"),
    "J-29": ("job/*-beyond-*",),
    "J-30": ("job/voucher-for-nothing", "job/voucher-twice", "job/settle-after-the-last-voucher"),
    "J-32": ("job/*-bound", "job/late-*", "job/ordered", "job/accepted", "job/not-expired"),
    # 04: assurance
    "A-1": ("policy/*",),
    "A-2": ("digest/commitment-*",),
    "A-3": ("audit/*", "verdict/audit*", "verdict/function-passed-over", "verdict/function-audited"),
    "A-4": ("sortition/*", "verdict/committee-without-candidates", "verdict/function-committee-too-small"),
    "A-5": ("verdict/check-*", "verdict/opened-and-other"),
    "A-6": ("record/attestation-a-*",),
    "A-7": ("verdict/opening-with-*", "verdict/opened"),
    "A-8": ("verdict/opened-beyond-the-receipt",),
    "A-9": ("verdict/other-work-beside", "verdict/two-attestations", "verdict/chain-*"),
    "A-10": ("verdict/owners", "verdict/mandate-*", "verdict/two-acceptances"),
    "A-11": ("verdict/in-order", "verdict/reversed", "verdict/doubled"),
    "A-12": (
        "verdict/two-of-one-owner",
        "verdict/checker-of-the-executors-owner",
        "verdict/client-*",
        "agreement/window-one-owner*",
        "agreement/window-party-objects",
    ),
    "A-13": ("verdict/silent*", "verdict/too-few-values", "agreement/window-no-values", "agreement/window-all-silent"),
    "A-14": (
        "verdict/agreed",
        "verdict/one-objects",
        "verdict/outvoted",
        "verdict/not-enough",
        "verdict/anchor-*",
        "agreement/window-*",
    ),
    "A-15": ("verdict/carried*", "agreement/carried-*"),
    "A-16": (
        "verdict/no-end",
        "verdict/cancelled*",
        "verdict/resumed*",
        "verdict/written-anew*",
        "verdict/second-window-false",
    ),
    "A-17": ("agreement/distance-*",),
    "A-18": ("verdict/function*", "agreement/results-*"),
    "A-19": ("verdict/equivocates*", "verdict/one-checker-of-two-windows", "verdict/second-window-false"),
    "A-21": ("verdict/no-work", "verdict/no-order"),
    "A-22": (
        "settlement/due-*",
        "settlement/withheld-*",
        "settlement/previous-missing",
        "settlement/of-another-node",
        "settlement/named-*",
        "settlement/falling",
    ),
    "A-23": (
        "settlement/accepted",
        "settlement/contradicting",
        "settlement/of-two-windows",
        "settlement/nothing-due",
        "settlement/committee-*",
    ),
    "A-24": ("evidence/*",),
    "A-25": ("evidence/changed", "evidence/garbled", "evidence/mandate-unauthorised", "evidence/not-as-its-kind-is"),
    # 05: payment
    "P-1": ("evidence/channel*", "evidence/two-nonces"),
    "P-3": ("evidence/voucher*",),
    "P-6": ("record/voucher-held-for-ever", "record/voucher-release-of-nothing", "record/voucher-nothing-held"),
    "P-7": ("channel/payee-another-*",),
    "P-8": ("channel/*-after-grace*", "channel/payer-is-shown-too-late"),
    "P-9": ("channel/*beyond-the-limit*",),
    "P-10": ("channel/payee-held-for-*",),
    "P-11": ("channel/payee-forfeits-by-itself", "channel/payee-forfeits-more"),
    "P-12": ("channel/payee-contradiction", "channel/payee-release-moved"),
    "P-13": ("channel/payee-too-little", "channel/payee-second-too-little", "channel/payee-overtaken-too-little"),
    "P-14": ("channel/payee-held-*",),
    "P-15": ("channel/payee-overtaken", "channel/payee-repeated", "channel/payee-takes-two"),
    "P-17": ("channel/payer-pays*", "channel/payer-holds*", "channel/payer-restates*", "channel/payer-has-room-again"),
    "P-18": ("channel/payer-forfeits", "channel/payee-is-told"),
    "P-19": ("channel/*-forfeits-too-*", "channel/*-forfeits-anew", "channel/*-forfeits-nothing"),
    "P-20": (
        "channel/payee-pays",
        "channel/payer-closes-when-closed",
        "channel/payer-is-shown-while-open",
        "channel/payee-forfeits-when-closed",
    ),
    "P-21": (
        "channel/payer-closes-by-*",
        "channel/payee-waits-for-release",
        "channel/payee-closed-by-both",
        "channel/payer-expires",
    ),
    "P-22": ("channel/payer-is-shown*",),
    "P-23": ("channel/payee-released-and-closed", "channel/payee-forfeits-while-closing"),
    # 06: grid
    "G-5": ("evidence/shed-order*",),
    "G-6": ("record/shed-order-*",),
    "G-7": ("grid/order-by-another",),
    "G-8": ("grid/order-of-the-future", "grid/order-forgotten", "grid/order-last", "grid/order-issued-ahead"),
    "G-9": ("grid/zone-*",),
    "G-10": ("evidence/roster*",),
    "G-11": ("record/feeder-roster-*",),
    "G-12": ("grid/roster-*",),
    "G-16": ("grid/lease-*", "record/feeder-lease-to-itself", "record/feeder-lease-too-long"),
    "G-17": ("grid/lease-too-much*", "grid/lease-borrowed-on", "grid/lease-thirteenth"),
    "G-18": ("grid/allowance-*",),
    "G-19": ("grid/proof-*", "evidence/over-lent*"),
    # 07: bundles
    "B-1": ("record/manifest-chunk-missing", "record/manifest-programs-alike", "record/manifest-unknown-entry"),
    # 09: limits
    "L-1": ("published/too-large", "message/cancel-too-full"),
    "L-2": ("record/*-too-long*", "record/*-too-large", "record/*-too-much-credit", "record/job-order-candidates"),
    "L-3": ("framing/largest-announced", "record/*-longest", "record/*-largest", "codec/largest-integer"),
}
"""Id of a requirement -> ids of cases, with `*` for any letters."""


def by_case(ids: Iterable[str]) -> dict[str, list[str]]:
    """The requirements of each case. Raises `LookupError` for a proof that no case gives."""
    named: dict[str, list[str]] = {id: [] for id in ids}
    for requirement, patterns in PROOFS.items():
        for pattern in patterns:
            proving = [id for id in named if fnmatchcase(id, pattern)]
            if not proving:
                raise LookupError(f"{requirement}: there is no case {pattern!r}")
            for id in proving:
                if requirement not in named[id]:
                    named[id].append(requirement)
    return named
