"""What the daemon and its worker say to each other over the control socket: msgpack in frames, checked like a peer's.

    frame = length (4 bytes, big-endian) || msgpack [kind, map of the record]

The daemon sends `Begin`, then `EngineJob`, `Credit`, `Cancel` and `Pace`. The worker answers `Here`, and sends `Loading` before
each bundle that it loads, `Unserved` after it if it refuses that one, and one `Ready` (or `Fatal`); then for each job
`EnginePiece`s until one has an `end`, or `Failed`, or `Cancelled`; and `Beat` after a step that gave no piece: no more of them
than all open jobs together have tokens and inputs, or the worker is ended (`too_many_steps`). Programs that are not needed at
once it loads later, and measures some: `Loading`, and a `Beat` when that is done. `Overrun` may be its last word at any time. A
worker runs publishers' programs, so what comes from it is read with the same schema and bounds as what comes from a peer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, cast, get_args

import msgpack

from ...protocol.bundle import CALL, GENERATE, SCORE
from ...protocol.codec import Value
from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.limits import (
    BUNDLES_MAX,
    CALL_INPUTS_MAX,
    MESSAGE_BYTES_MAX,
    OUTPUT_TOKENS_MAX,
    PROGRAMS_MAX,
    WINDOW_TOKENS,
)
from ...protocol.schema import Between, Hash, Key, Size, Text, Uint, Word, from_map_untrusted, to_map
from ...protocol.work import Masses, Parameters, Values

FRAME_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 64 * 1024
"""A sealed input or piece of the largest size, and what stands around it."""

AHEAD_PIECES_MAX: Final = WINDOW_TOKENS
"""Pieces that a worker makes before the first of them is taken: a window, the most that an executor risks unpaid."""

JOBS_MAX: Final = 64
"""Jobs that a worker may have at once; beyond 16 texts nothing gets faster."""

PREFIX_BYTES: Final = 256 * 1024**2
"""What a worker keeps of the sequences of one model that have ended: some twenty conversations of SmolLM2."""

DUTY_PPM_MIN: Final = 50_000
"""A twentieth: after the longest step, which takes seconds, the pause still ends well before the worker's silence tells."""
PAUSE_S_MAX: Final = 30.0
"""The longest pause between two steps, however little of the time may be used: half of the silence for which a worker that need
not pause is taken to hang."""

EOS, LENGTH, DONE = "eos", "length", "done"
"""How a job ended: with an end token, with exactly `max_tokens`, or (`score`, `call`) with its one piece."""


@dataclass(frozen=True, slots=True)
class EngineJob:
    """One order's work, as far as the daemon knows it."""

    id: Hash
    """The order's id: what the input was sealed for, and what the transcript is bound to."""
    bundle: Hash
    """The hash in the bundle's CID."""
    client: Key
    """Whose job it is: clients take turns, and what one has asked helps only the same one's next question."""
    entry: Word
    parameters: Parameters
    input_digest: Hash
    input_tokens: Uint
    sealed: Annotated[bytes, Size(0, MESSAGE_BYTES_MAX)]
    """`sealing.seal_input` of an `Input`, to the key of the worker that now runs."""
    calls: Annotated[int, Between(1, CALL_INPUTS_MAX)] = 1
    """Inputs in the work: they are priced, and only the worker can count them."""
    area: Annotated[int, Between(0, JOBS_MAX - 1)] = 0
    """Which of the areas of shared memory is this job's."""
    area_bytes: Uint = 0
    """If not 0, `sealed` lies there, so long, and not here."""


@dataclass(frozen=True, slots=True)
class Credit:
    """The worker may make so many more pieces of a job."""

    id: Hash
    pieces: Annotated[int, Between(1, AHEAD_PIECES_MAX)]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants the rest of a job. Answered by `Cancelled`, unless the job's end is already on its way."""

    id: Hash


@dataclass(frozen=True, slots=True)
class Pace:
    """The worker computes for this share of the time, and pauses between its steps for the rest."""

    duty_ppm: Annotated[int, Between(DUTY_PPM_MIN, 1_000_000)]


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured by this worker or an earlier one, alone on the machine or not: thousandths per second, 0 where not offered."""

    prefill_milli: Uint = 0
    """Tokens."""
    decode_milli: Uint = 0
    """Tokens of one job alone."""
    score_milli: Uint = 0
    """Tokens."""
    call_milli: Uint = 0
    """Sequences of the longest program."""


@dataclass(frozen=True, slots=True)
class KnownRates:
    """A bundle's rates as an earlier worker measured them."""

    bundle: Hash
    rates: Rates


@dataclass(frozen=True, slots=True)
class Begin:
    """The worker, which has waited for this since it was started, loads its bundles."""

    known: Annotated[tuple[KnownRates, ...], Size(0, BUNDLES_MAX)] = ()
    """If there are any, it follows one that served, after a yield mostly: somebody may be waiting for it."""


@dataclass(frozen=True, slots=True)
class Here:
    """The worker has read `Begin`: it is no frozen one. It loads its bundles, in the order in which it was given them."""


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle that the worker has loaded."""

    bundle: Hash
    name: Word
    numerics_class: Text
    """All variants that may run; see `protocol.numerics`."""
    rates: Rates


@dataclass(frozen=True, slots=True)
class Unserved:
    """The bundle of which `Loading` was just said is not served, by its own fault."""

    bundle: Hash
    code: Word
    message: Text


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker begins with this bundle, or loads or measures one more of its programs: if it dies before its next word, that
    is why."""

    bundle: Hash


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker takes jobs whose input is sealed to this X25519 key, made inside it and lost with it."""

    hpke_key: Key
    served: Annotated[tuple[Served, ...], Size(1, BUNDLES_MAX)]
    measures: Annotated[tuple[Word, ...], Size(0, 16)] = ()
    """What confines it, in `confinement.MEASURES`' names, by its own account before it read any bundle."""


@dataclass(frozen=True, slots=True)
class EnginePiece:
    """One chunk of a job's answer."""

    id: Hash
    index: Uint
    """From 0; the nonce that it is sealed under."""
    sealed: Annotated[bytes, Size(0, MESSAGE_BYTES_MAX)]
    """`PieceSealer.seal` of a `Piece`: only the client can read it."""
    tokens: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)]
    """Output tokens in it (`score`: checked tokens, `call`: 0)."""
    values_micro: Values
    """Each of those tokens' log-probability in micro-nats, for the receipt."""
    transcript: Hash
    """The rolling hash up to and with this piece."""
    end: Annotated[str, Size(0, 16)] = ""
    """Empty while more follows, else one of `EOS`, `LENGTH`, `DONE`."""
    gaps_micro: Values = ()
    """`score`: each checked token's gap, for the attestation."""
    masses_ppm: Masses = ()
    """`score`: the mass strictly likelier than each checked token."""
    area_bytes: Uint = 0
    """If not 0, `sealed` lies in the job's area, so long, and not here."""
    ran: Annotated[tuple[Word, ...], Size(0, PROGRAMS_MAX)] = ()
    """Variants of the programs that ran for it, those that read the input before the first piece among them."""

    def __post_init__(self) -> None:
        if self.end not in ("", EOS, LENGTH, DONE):
            raise ValueError(f"{self.end!r} is not an end")


@dataclass(frozen=True, slots=True)
class Failed:
    """A job ended without its answer, by the job's own fault or the worker's; the worker goes on."""

    id: Hash
    code: Word
    message: Text


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job ended because of `Cancel`: its slot and memory are free."""

    id: Hash


@dataclass(frozen=True, slots=True)
class Fatal:
    """The worker cannot start and exits."""

    code: Word
    message: Text


@dataclass(frozen=True, slots=True)
class Overrun:
    """A program of this bundle took longer than it may, or one that was loaded late breaks the rules; the worker has ended."""

    bundle: Hash
    message: Text


@dataclass(frozen=True, slots=True)
class Sealed:
    """Every program is loaded, and the worker has given up the right to write anything."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A step was done that gave no piece, or a program was loaded: the worker computes, it does not hang."""


Message = (
    Begin
    | EngineJob
    | Credit
    | Cancel
    | Pace
    | Here
    | Loading
    | Unserved
    | Ready
    | EnginePiece
    | Failed
    | Cancelled
    | Fatal
    | Overrun
    | Sealed
    | Beat
)
ENTRIES = (GENERATE, SCORE, CALL)
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The message as one frame."""
    body = cast(bytes, msgpack.packb([type(message).__name__, to_map(message)]))
    return len(body).to_bytes(4, "big") + body


class FrameBuffer:
    """Bytes in, messages out. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed_untrusted(self, received: bytes) -> Iterator[Message]:
        """The messages that `received` completes. Raises `RemoteProtocolError` at the first bad frame."""
        self._held += received
        while len(self._held) >= 4:
            end = 4 + int.from_bytes(self._held[:4], "big")
            if end > 4 + FRAME_BYTES_MAX:
                raise RemoteProtocolError(Code.TOO_LARGE, f"A frame of {end - 4} bytes is announced.")
            if len(self._held) < end:
                return
            body = bytes(self._held[4:end])
            del self._held[:end]
            yield _decode_untrusted(body)


def _decode_untrusted(body: bytes) -> Message:
    try:
        value: object = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(Code.BAD_ENCODING, f"Not msgpack: {type(error).__name__}.") from None
    match value:
        case [str(name), fields] if name in _KINDS:
            return from_map_untrusted(_KINDS[name], cast(Value, fields))
    raise RemoteProtocolError(Code.BAD_ENCODING, "Not a message of the control socket.")
