"""What a client asks a worker to compute, and the pieces in which it answers: the plaintext inside the sealing.

The daemon in between sees parameters, counts and digests; tokens and outputs are readable by the two ends only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from blake3 import blake3

from .codec import encode
from .identity import salted_digest
from .limits import CALL_INPUTS_MAX, INPUT_TOKENS_MAX, MESSAGE_BYTES_MAX, OUTPUT_TOKENS_MAX
from .reading import read_untrusted
from .schema import Between, Key, Size, Uint, to_map

Token = Annotated[int, Between(0, 2**31 - 1)]
Tokens = Annotated[tuple[Token, ...], Size(0, INPUT_TOKENS_MAX + OUTPUT_TOKENS_MAX)]
MicroNats = Annotated[int, Between(-(2**40), 2**40)]
Values = Annotated[tuple[MicroNats, ...], Size(0, OUTPUT_TOKENS_MAX)]
Masses = Annotated[tuple[Uint, ...], Size(0, OUTPUT_TOKENS_MAX)]


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to compute, in the order where both sides and any checker can read it. A `call` ignores it."""

    max_tokens: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)] = 0
    """`generate`: the text ends here at the latest."""
    temperature_milli: Annotated[int, Between(0, 10_000)] = 0
    """0 takes the likeliest token."""
    top_p_ppm: Annotated[int, Between(0, 1_000_000)] = 1_000_000
    """Only the likeliest tokens that make up this share are chosen from; 1,000,000: all."""
    seed: Uint = 0
    """Of the counter noise (seed, absolute position, token): the same seed gives the same text on any honest node."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to compute on: token sequences, or the inputs of a function of arrays."""

    sequences: Annotated[tuple[Tokens, ...], Size(0, CALL_INPUTS_MAX)] = ()
    """`generate` and `score`: one, `call`: one per result."""
    claimed: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)] = 0
    """`score`: so many last tokens of the sequence are what an executor claims to have generated after the rest."""
    arrays: Annotated[tuple[Annotated[bytes, Size(1, MESSAGE_BYTES_MAX)], ...], Size(0, CALL_INPUTS_MAX)] = ()
    """`call`: one per result, instead of sequences: the bundle's inputs one after another, little-endian, row-major."""

    def __post_init__(self) -> None:
        if bool(self.sequences) == bool(self.arrays):
            raise ValueError("sequences and arrays both, or neither")
        if not all(self.sequences) or (self.claimed and self.claimed >= sum(map(len, self.sequences[:1]))):
            raise ValueError("an empty sequence, or a claim that leaves no input")

    def encode(self) -> bytes:
        """The bytes that are digested and sealed."""
        return encode(to_map(self))

    @property
    def input_tokens(self) -> int:
        """Tokens that are given, priced as input: all but the claimed ones. An input of arrays counts as one."""
        return sum(map(len, self.sequences)) + len(self.arrays) - self.claimed

    @property
    def calls(self) -> int:
        """Inputs, each of which has its own result."""
        return len(self.sequences) + len(self.arrays)


@dataclass(frozen=True, slots=True)
class Input:
    """The plaintext of a sealed input. `work` is digested with `salt`; pieces come back sealed under `reply_secret`."""

    salt: Key
    """Random, for this order alone: of the input's digest and of the transcript."""
    reply_secret: Key
    """Random, for this order alone: the key under which pieces are sealed."""
    work: Annotated[bytes, Size(1, MESSAGE_BYTES_MAX)]
    """A `Work`, encoded."""

    def encode(self) -> bytes:
        """The bytes that are sealed."""
        return encode(to_map(self))

    @property
    def digest(self) -> bytes:
        """The order's `input_digest`."""
        return salted_digest(self.salt, self.work)


@dataclass(frozen=True, slots=True)
class Piece:
    """The plaintext of one chunk. `generate` fills tokens and values, `score` values, gaps and masses, `call` the tensor."""

    tokens: Tokens = ()
    """What was generated, in order."""
    values_micro: Values = ()
    """Each token's log-probability at temperature 1 in micro-nats: what only running the model can give."""
    gaps_micro: Values = ()
    """`score`: how far each claimed token's perturbed score lies below the best, in micro-nats of logit."""
    masses_ppm: Masses = ()
    """`score`: probability mass strictly likelier than each claimed token, at the order's temperature."""
    tensor: Annotated[bytes, Size(0, MESSAGE_BYTES_MAX // 2)] = b""
    """`call`: float32, little-endian, row-major."""
    shape: Annotated[tuple[Uint, ...], Size(0, 8)] = ()
    """Of the tensor: rows, one for each input, and columns."""

    def encode(self) -> bytes:
        """The bytes that are hashed into the transcript and sealed."""
        return encode(to_map(self))


def decode_work_untrusted(encoded: bytes) -> Work:
    """Raises `RemoteProtocolError` unless `encoded` is a `Work` whose claim fits its sequence."""
    return read_untrusted(Work, encoded, bytes_max=MESSAGE_BYTES_MAX)


def decode_input_untrusted(encoded: bytes) -> Input:
    """Raises `RemoteProtocolError` unless `encoded` is an `Input`."""
    return read_untrusted(Input, encoded, bytes_max=MESSAGE_BYTES_MAX)


def decode_piece_untrusted(encoded: bytes) -> Piece:
    """Raises `RemoteProtocolError` unless `encoded` is a `Piece`."""
    return read_untrusted(Piece, encoded, bytes_max=MESSAGE_BYTES_MAX)


def transcript_start(salt: bytes, order_id: bytes) -> bytes:
    """The rolling hash before the first piece: bound to the order, and salted so that short answers cannot be guessed."""
    return blake3(b"fallow/1/transcript" + salt + order_id).digest()


def transcript_next(transcript: bytes, piece: bytes) -> bytes:
    """The rolling hash after one more piece: delivered, owed and checked are the same bytes."""
    return blake3(transcript + piece).digest()
