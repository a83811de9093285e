"""The one registry of error codes, and the exceptions that carry them.

A code is stable: programs may match on it. The message says what happened and what was kept; the advice says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Disposition(StrEnum):
    """What the receiver does with the message, in the words of gossip validation."""

    REJECT = "reject"
    """The sender is at fault: drop the message and count it against the sender."""
    IGNORE = "ignore"
    """Nobody is at fault, or it cannot be told: drop the message."""


class Code(StrEnum):
    """Every error that a peer, a client or a person can be shown."""

    # What arrived is not what the protocol allows.
    BAD_ENCODING = "bad_encoding"
    BAD_RECORD = "bad_record"
    BAD_SIGNATURE = "bad_signature"
    TOO_LARGE = "too_large"
    ILLEGAL_MOVE = "illegal_move"
    TIMED_OUT = "timed_out"
    CONTRADICTION = "contradiction"
    OVER_LENT = "over_lent"
    UNKNOWN_ROSTER = "unknown_roster"
    # A node's legitimate no.
    UNKNOWN_BUNDLE = "unknown_bundle"
    UNKNOWN_ENTRY = "unknown_entry"
    WRONG_EXECUTOR = "wrong_executor"
    EXPIRED = "expired"
    REPLAYED = "replayed"
    STALE_WORKER_KEY = "stale_worker_key"
    STALE_PRICES = "stale_prices"
    BAD_TERMS = "bad_terms"
    BAD_MANDATE = "bad_mandate"
    INPUT_TOO_LONG = "input_too_long"
    INPUT_MISMATCH = "input_mismatch"
    PRICE_TOO_HIGH = "price_too_high"
    CREDIT_EXHAUSTED = "credit_exhausted"
    PREPAY = "prepay"
    UNPAID = "unpaid"
    LOCKED = "locked"
    SPENT = "spent"
    BUSY = "busy"
    OWNER_NEEDS_MACHINE = "owner_needs_machine"
    # The client's side.
    NO_EXECUTOR = "no_executor"
    UNKNOWN_NAME = "unknown_name"
    UNSATISFIABLE_ASSURANCE = "unsatisfiable_assurance"
    REJECTED = "rejected"
    UNSIGNED = "unsigned"
    # The network.
    BOOTSTRAP_UNREACHABLE = "bootstrap_unreachable"
    PEER_UNREACHABLE = "peer_unreachable"
    STREAM_CLOSED = "stream_closed"
    PROTOCOL_UNSUPPORTED = "protocol_unsupported"
    PORT_BUSY = "port_busy"
    RELAY_REFUSED = "relay_refused"
    # This machine.
    CORRUPT_CHUNK = "corrupt_chunk"
    CORRUPT_STORE = "corrupt_store"
    STORE_FULL = "store_full"
    BUNDLE_NOT_BUILT = "bundle_not_built"
    BUNDLE_UNTRUSTED = "bundle_untrusted"
    BUNDLE_REFUSED = "bundle_refused"
    DEVICES_MISSING = "devices_missing"
    DOWNLOAD_FAILED = "download_failed"
    PACKAGE_MISSING = "package_missing"
    UNSUPPORTED_MODEL = "unsupported_model"
    BAD_CONFIG = "bad_config"
    BAD_REQUEST = "bad_request"
    ALREADY_RUNNING = "already_running"
    NOT_RUNNING = "not_running"
    SANDBOX_MISSING = "sandbox_missing"
    WORKER_DIED = "worker_died"
    WORKER_FAILED = "worker_failed"
    TOO_MANY_STEPS = "too_many_steps"


@dataclass(frozen=True, slots=True)
class CodeEntry:
    """One row of the registry."""

    code: Code
    side: str
    """Who meets it: `peer`, `client`, `node` or `any`."""
    disposition: Disposition
    advice: str
    """What to do next, one sentence for a person."""


_REJECT, _IGNORE = Disposition.REJECT, Disposition.IGNORE

REGISTRY: dict[Code, CodeEntry] = {
    entry.code: entry
    for entry in (
        CodeEntry(Code.BAD_ENCODING, "peer", _REJECT, "The peer runs something else or is hostile; use another peer."),
        CodeEntry(Code.BAD_RECORD, "peer", _REJECT, "The peer runs another version or is hostile; use another peer."),
        CodeEntry(
            Code.BAD_SIGNATURE, "any", _REJECT, "Do not use this record: it was altered, or signed by another key."
        ),
        CodeEntry(
            Code.TOO_LARGE, "any", _REJECT, "Send less at once; the bounds are in the specification's table of limits."
        ),
        CodeEntry(Code.ILLEGAL_MOVE, "peer", _REJECT, "The peer broke the job's sequence; use another peer."),
        CodeEntry(Code.TIMED_OUT, "any", _IGNORE, "The job goes on elsewhere; if it is alone, try again."),
        CodeEntry(
            Code.CONTRADICTION, "any", _REJECT, "Keep both records: together they prove what their signer has done."
        ),
        CodeEntry(Code.OVER_LENT, "peer", _REJECT, "Borrow from another member; the leases prove what this one did."),
        CodeEntry(Code.UNKNOWN_ROSTER, "peer", _IGNORE, "Ask for the feeder's current roster, then for a lease of it."),
        CodeEntry(Code.UNKNOWN_BUNDLE, "node", _IGNORE, "Choose a node whose profile lists the bundle."),
        CodeEntry(Code.UNKNOWN_ENTRY, "node", _IGNORE, "`fallow bundle inspect NAME` lists the bundle's entries."),
        CodeEntry(Code.WRONG_EXECUTOR, "node", _REJECT, "Send an order to the one node that it names."),
        CodeEntry(Code.EXPIRED, "any", _IGNORE, "Check this machine's clock, then send a fresh order."),
        CodeEntry(Code.REPLAYED, "node", _REJECT, "Sign a new order; each is run at most once."),
        CodeEntry(Code.STALE_WORKER_KEY, "node", _IGNORE, "Ask the node for its current profile and order again."),
        CodeEntry(Code.STALE_PRICES, "node", _IGNORE, "Ask the node for its current prices and order again."),
        CodeEntry(Code.BAD_TERMS, "node", _IGNORE, "Order within the terms of the node's profile."),
        CodeEntry(Code.BAD_MANDATE, "any", _REJECT, "The node's owner has to renew its mandate."),
        CodeEntry(Code.INPUT_TOO_LONG, "any", _IGNORE, "Shorten the prompt or ask for fewer tokens."),
        CodeEntry(Code.INPUT_MISMATCH, "node", _REJECT, "Seal the input again; it did not match its digest."),
        CodeEntry(Code.PRICE_TOO_HIGH, "any", _IGNORE, "Raise the price cap, or wait for a cheaper node."),
        CodeEntry(Code.CREDIT_EXHAUSTED, "any", _IGNORE, "Open a channel with a higher limit, or settle first."),
        CodeEntry(Code.PREPAY, "any", _IGNORE, "Pay what the node is owed, or pay ahead; or use another node."),
        CodeEntry(Code.UNPAID, "node", _REJECT, "Send the voucher for the last receipt; delivery stops without it."),
        CodeEntry(Code.LOCKED, "any", _IGNORE, "Repeat the command after the time that it names."),
        CodeEntry(Code.SPENT, "any", _IGNORE, "Nothing: it counts as paid there, and `fallow balance` shows it."),
        CodeEntry(Code.BUSY, "node", _IGNORE, "Try another node, or this one after the time that it names."),
        CodeEntry(Code.OWNER_NEEDS_MACHINE, "node", _IGNORE, "Go on elsewhere: the owner has taken the machine back."),
        CodeEntry(Code.NO_EXECUTOR, "client", _IGNORE, "See `fallow nodes`; wait for nodes, or lower the demands."),
        CodeEntry(
            Code.UNKNOWN_NAME,
            "client",
            _IGNORE,
            "Name a bundle from the trust list, or add one with `fallow trust add`.",
        ),
        CodeEntry(
            Code.UNSATISFIABLE_ASSURANCE, "client", _IGNORE, "Ask for a smaller quorum, or wait for more owners."
        ),
        CodeEntry(Code.REJECTED, "client", _IGNORE, "No answer could be checked; the verdict names who disagreed."),
        CodeEntry(
            Code.UNSIGNED,
            "client",
            _IGNORE,
            "Nothing is owed for it; ask again, with a policy that checks, where somebody has to stand for all of the text.",
        ),
        CodeEntry(
            Code.BOOTSTRAP_UNREACHABLE, "any", _IGNORE, "Check the addresses and that one of those nodes is running."
        ),
        CodeEntry(Code.PEER_UNREACHABLE, "any", _IGNORE, "The node may have left; others are tried by themselves."),
        CodeEntry(Code.STREAM_CLOSED, "any", _IGNORE, "The other side has gone; others are tried by themselves."),
        CodeEntry(Code.PROTOCOL_UNSUPPORTED, "any", _IGNORE, "The peer does not offer this service; use another one."),
        CodeEntry(
            Code.RELAY_REFUSED, "any", _IGNORE, "Nothing: other relays are tried; `fallow doctor` shows which hold."
        ),
        CodeEntry(
            Code.PORT_BUSY, "node", _IGNORE, "Stop what uses the port, or set another one (0 takes any free one)."
        ),
        CodeEntry(
            Code.CORRUPT_CHUNK, "any", _REJECT, "Build or fetch the bundle again; nothing of the bad part was used."
        ),
        CodeEntry(
            Code.CORRUPT_STORE,
            "any",
            _IGNORE,
            "Restore the file from a backup, or move it away to start with a new one.",
        ),
        CodeEntry(
            Code.STORE_FULL,
            "any",
            _IGNORE,
            "Make room with `fallow bundle gc`, unpin or remove a bundle, or raise the limit.",
        ),
        CodeEntry(
            Code.BUNDLE_NOT_BUILT,
            "any",
            _IGNORE,
            "Run `fallow bundle build NAME` or `fallow bundle fetch NAME` once on this machine.",
        ),
        CodeEntry(
            Code.BUNDLE_UNTRUSTED, "any", _IGNORE, "Trust its publisher with `fallow trust add`, or leave it out."
        ),
        CodeEntry(
            Code.BUNDLE_REFUSED,
            "any",
            _IGNORE,
            "Leave it out: its programs do not keep the rules that the message names.",
        ),
        CodeEntry(
            Code.DEVICES_MISSING,
            "any",
            _IGNORE,
            "Name more of the machine's accelerators in `accelerators`, or leave the bundle to larger machines.",
        ),
        CodeEntry(Code.DOWNLOAD_FAILED, "any", _IGNORE, "Check that pip reaches your package index, then build again."),
        CodeEntry(Code.PACKAGE_MISSING, "any", _IGNORE, "Install the extra that the message names."),
        CodeEntry(
            Code.UNSUPPORTED_MODEL,
            "any",
            _IGNORE,
            "Change what the message names; `models/` shows how others are made.",
        ),
        CodeEntry(Code.BAD_CONFIG, "any", _IGNORE, "Correct what the message names."),
        CodeEntry(
            Code.BAD_REQUEST,
            "node",
            _IGNORE,
            "Ask as `node/control.py` and docs/owner.md say; `fallow node --help` asks for you.",
        ),
        CodeEntry(Code.ALREADY_RUNNING, "any", _IGNORE, "Use the one that runs, or stop it first."),
        CodeEntry(Code.NOT_RUNNING, "any", _IGNORE, "Start it first."),
        CodeEntry(
            Code.SANDBOX_MISSING,
            "node",
            _IGNORE,
            "`apt-get install bubblewrap`, or see `fallow doctor --sandbox`; `sandbox` in node.toml decides what is refused.",
        ),
        CodeEntry(Code.WORKER_DIED, "node", _IGNORE, "Nothing: the node starts a new worker by itself."),
        CodeEntry(Code.WORKER_FAILED, "node", _IGNORE, "See the node's log; the node serves other bundles meanwhile."),
        CodeEntry(Code.TOO_MANY_STEPS, "node", _IGNORE, "Use another node; this one starts a new worker by itself."),
    )
}


class FallowError(Exception):
    """Anything that Fallow tells a person or a peer, with its stable code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def advice(self) -> str:
        """What to do next, from the registry."""
        return REGISTRY[self.code].advice

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.advice}"


class ProtocolError(FallowError):
    """A rule of the protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We broke it: a bug in our own code, never something a peer can cause."""


class RemoteProtocolError(ProtocolError):
    """The other side broke it; the only error that leaves a function ending in `_untrusted`."""

    @property
    def disposition(self) -> Disposition:
        """Whether the sender is at fault."""
        return REGISTRY[self.code].disposition


class Refused(FallowError):
    """A legitimate no, ours or the other side's."""

    def __init__(self, code: Code, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(code, message)
        self.retry_after_ms = retry_after_ms


class NetworkError(FallowError):
    """The other side cannot be reached, or went away."""


class EngineError(FallowError):
    """The worker could not run, or could not go on."""


class StoreError(FallowError):
    """Something kept on this machine cannot be used as it is."""


class ConfigError(FallowError):
    """A setting is wrong; the message names it."""
