"""An order for work, the executor's consent, and the checks that stand between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .errors import Code, Refused
from .limits import CALL_INPUTS_MAX, CANDIDATES_MAX, HOLD_MS_MAX, INPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX, SKEW_MS
from .prices import Price, Ucr
from .schema import Between, Hash, Key, Nonce, Ppm, Size, Text, Uint, Word
from .work import Parameters


@dataclass(frozen=True, slots=True)
class Continuation:
    """This order resumes another's work after `receipt`, at an absolute token position of the sequence."""

    receipt: Hash
    """Id of the other order's last receipt for what stands in the text."""
    position: Uint
    """Tokens before the first one that is asked for: those of the prompt and of the answer so far."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """The client orders one entry of one bundle from one executor, on stated terms. An order is run at most once."""

    RECORD: ClassVar[str] = "job-order"

    bundle: Hash
    """Id of its manifest: the bundle's CID without the prefix."""
    entry: Word
    """`generate`, `score` or `call`."""
    parameters: Parameters
    """How to compute."""
    calls: Annotated[int, Between(1, CALL_INPUTS_MAX)]
    """Inputs of a `call`; 1 for the other entries."""
    input_tokens: Annotated[int, Between(1, INPUT_TOKENS_MAX)]
    """All tokens that are given and not claimed; the worker refuses an input of another length."""
    planned_tokens: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)]
    """`generate`: at most so many; `score`: the tokens to check; `call`: 0."""
    input_digest: Hash
    """BLAKE3 over a random 32-byte salt and the plaintext of the work."""
    executor: Key
    """Key of the node."""
    worker_key: Hash
    """Id of the `WorkerKey` that the input is sealed to."""
    price: Price
    """That the amounts follow: of this bundle's entry, in the executor's profile."""
    channel: Hash
    """Id of the channel that pays for it."""
    amount_ucr_max: Ucr
    """The executor refuses an order that may come to more."""
    created_ms: Uint
    """When it was signed, in milliseconds since 1970."""
    nonce: Nonce
    """Two orders that are alike in all else are two orders."""
    first_chunk_ms_max: Annotated[int, Between(100, 600_000)]
    """From `Accept` to the first chunk, on each side's own monotonic clock."""
    gap_ms_max: Annotated[int, Between(100, 600_000)]
    """From one chunk to the next, while no voucher is missing."""
    check_commitment: Hash
    """BLAKE3 over a nonce and how the result will be checked; opened with the verdict."""
    held_ppm: Ppm
    """Share of each receipt's pay that the client may hold back until `hold_ms` after the receipt."""
    hold_ms: Annotated[int, Between(0, HOLD_MS_MAX)]
    """From the receipt until what is held of it falls due at the latest."""
    candidates: Annotated[tuple[Key, ...], Size(0, CANDIDATES_MAX)]
    """Owners from whom a committee may be drawn, to whom alone plaintext is opened then; none: there is no committee."""
    continues: Continuation | None
    """Absent if the text begins here, or if no receipt came for what stands in it."""
    checks: Hash | None
    """`score`: id of the receipt whose window is checked. `call`: of the receipt that a committee re-executes."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The executor takes the order on its terms."""

    RECORD: ClassVar[str] = "accept"

    order: Hash
    """Id of the order."""
    mandate: Hash
    """Id of the mandate under which it works: with it the node says whose word its receipts are."""
    clock_ms: Uint
    """Milliseconds since 1970 by the executor's clock."""
    numerics_class: Text
    """Of the worker that will run it, with all variants that may run."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an executor holds an order against at the moment it arrives."""

    node: bytes
    worker_key: bytes
    prices: frozenset[Price]
    bundles: frozenset[tuple[bytes, str]]
    """(bundle, entry) pairs on offer."""
    held_ppm_max: int = 0
    hold_ms_max: int = 0
    arbiters: frozenset[bytes] = frozenset()


def check_order(order: JobOrder, terms: Terms, now_ms: int) -> None:
    """Raises `Refused` with the reason why this node does not run this order now. Cheap checks come first."""
    if order.executor != terms.node:
        raise Refused(Code.WRONG_EXECUTOR, "The order is for another executor.")
    if abs(now_ms - order.created_ms) > SKEW_MS:
        raise Refused(Code.EXPIRED, "The order was signed at a time that is not now.")
    if not any(bundle == order.bundle for bundle, _ in terms.bundles):
        raise Refused(Code.UNKNOWN_BUNDLE, "This node does not serve the bundle.")
    if (order.bundle, order.entry) not in terms.bundles:
        raise Refused(Code.UNKNOWN_ENTRY, f"The bundle is served, but not its entry {order.entry!r}.")
    if order.price not in terms.prices or (order.price.bundle, order.price.entry) != (order.bundle, order.entry):
        raise Refused(Code.STALE_PRICES, "The order names another price than this node's.")
    if order.worker_key != terms.worker_key:
        raise Refused(Code.STALE_WORKER_KEY, "The input is sealed to a worker that has gone.")
    if order.held_ppm > terms.held_ppm_max or order.hold_ms > terms.hold_ms_max:
        raise Refused(Code.BAD_TERMS, "The order would hold back more pay, or for longer, than this node allows.")
    if not terms.arbiters.issuperset(order.candidates):
        raise Refused(Code.BAD_TERMS, "The order names a committee's candidate whom this node has not agreed to.")
