"""An order for work, the executor's consent, and the checks that stand between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .errors import Code, Refused
from .limits import CALL_INPUTS_MAX, INPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX, SKEW_MS
from .prices import Ucr
from .schema import Between, Hash, Key, Nonce, Text, Uint, Word
from .work import Parameters


@dataclass(frozen=True, slots=True)
class Continuation:
    """This order resumes another's work after `receipt`, at an absolute token position of the sequence."""

    receipt: Hash
    position: Uint


@dataclass(frozen=True, slots=True)
class JobOrder:
    """The client orders one entry of one bundle from one executor, on stated terms. An order is run at most once."""

    RECORD: ClassVar[str] = "job-order"

    bundle: Hash
    entry: Word
    parameters: Parameters
    calls: Annotated[int, Between(1, CALL_INPUTS_MAX)]
    input_tokens: Annotated[int, Between(1, INPUT_TOKENS_MAX)]
    planned_tokens: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)]
    """`generate`: at most so many; `score`: the tokens to check; `call`: 0."""
    input_digest: Hash
    """BLAKE3 over a random 32-byte salt and the plaintext of the work."""
    executor: Key
    worker_key: Hash
    """Id of the `WorkerKey` that the input is sealed to."""
    price_list: Hash
    channel: Hash
    amount_ucr_max: Ucr
    created_ms: Uint
    nonce: Nonce
    first_chunk_ms_max: Annotated[int, Between(100, 600_000)]
    gap_ms_max: Annotated[int, Between(100, 600_000)]
    """Time bounds on delivery, as durations from `Accept` on each side's own monotonic clock."""
    check_commitment: Hash
    """BLAKE3 over a nonce and how the result will be checked; opened with the verdict."""
    continues: Continuation | None
    checks: Hash | None
    """`score`: id of the receipt whose window is checked."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The executor takes the order on its terms."""

    RECORD: ClassVar[str] = "accept"

    order: Hash
    clock_ms: Uint
    numerics_class: Text


@dataclass(frozen=True, slots=True)
class Terms:
    """What an executor holds an order against at the moment it arrives."""

    node: bytes
    worker_key: bytes
    price_list: bytes
    bundles: frozenset[tuple[bytes, str]]
    """(bundle, entry) pairs on offer."""


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
    if order.price_list != terms.price_list:
        raise Refused(Code.STALE_PRICES, "The order was made under an older price list.")
    if order.worker_key != terms.worker_key:
        raise Refused(Code.STALE_WORKER_KEY, "The input is sealed to a worker that has gone.")
