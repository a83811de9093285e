"""A store with the two tiny bundles, and the client's half of a job."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fallow.models import build
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import EngineJob, EnginePiece
from fallow.node.engine.sandbox import bubblewrap
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.protocol.identity import cid_hash_untrusted
from fallow.protocol.work import (
    Input,
    Parameters,
    Piece,
    Work,
    decode_piece_untrusted,
    transcript_next,
    transcript_start,
)


@dataclass(frozen=True)
class Tiny:
    """A store and what is in it."""

    store: BundleStore
    chat: str
    embed: str


@pytest.fixture(scope="session")
def tiny(new_home: Callable[[], Path]) -> Tiny:
    store = BundleStore(new_home() / "store")
    return Tiny(store, build("tiny-chat", store), build("tiny-embed", store))


@pytest.fixture
async def engine(tiny: Tiny, tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_engine(tiny.store, [tiny.chat, tiny.embed], log_path=tmp_path / "worker.log") as engine:
        yield engine


@pytest.fixture(scope="session")
def bwrap() -> str:
    """Where bubblewrap is, which works here."""
    found = bubblewrap()
    if not found:
        if os.environ.get("FALLOW_NEED_ALL"):
            pytest.fail(found.why_not)
        pytest.skip(found.why_not)
    return found.path


@dataclass
class Asked:
    """One job from the client's side: what it sealed, and what it can open."""

    work: Work
    cid: str
    entry: str = "generate"
    parameters: Parameters = field(default_factory=lambda: Parameters(max_tokens=16))
    id: bytes = field(default_factory=lambda: os.urandom(32))
    salt: bytes = field(default_factory=lambda: os.urandom(32))
    secret: bytes = field(default_factory=lambda: os.urandom(32))
    client: bytes = bytes(32)

    def job(self, hpke_key: bytes, **changes: object) -> EngineJob:
        """The job as the daemon gets it, sealed to the worker's key; with `changes` to it afterwards."""
        plain = Input(self.salt, self.secret, self.work.encode())
        sealed = seal_input(hpke_key, self.id, plain.encode())
        bundle = cid_hash_untrusted(self.cid)
        job = EngineJob(
            self.id,
            bundle,
            self.client,
            self.entry,
            self.parameters,
            plain.digest,
            self.work.input_tokens,
            sealed,
            self.work.calls,
        )
        return replace(job, **changes)  # type: ignore[arg-type]  # the tests' own keywords

    def open(self, pieces: list[EnginePiece]) -> list[Piece]:
        """The pieces' plaintext, after checking everything that a client checks of them."""
        sealer, transcript, opened = PieceSealer(self.secret, self.id), transcript_start(self.salt, self.id), []
        for index, piece in enumerate(pieces):
            plain = sealer.open(index, piece.sealed)
            transcript = transcript_next(transcript, plain)
            opened.append(decode_piece_untrusted(plain))
            assert piece.transcript == transcript
            assert piece.values_micro == opened[-1].values_micro
            assert piece.tokens == len(piece.values_micro)
            assert piece.gaps_micro == opened[-1].gaps_micro
            assert piece.masses_ppm == opened[-1].masses_ppm
            assert not piece.end or index == len(pieces) - 1
        return opened

    async def answer(self, engine: Engine) -> list[Piece]:
        """The whole answer of an engine."""
        pieces = [piece async for piece in engine.submit(self.job(engine.hpke_key))]
        assert pieces[-1].end
        return self.open(pieces)

    async def text(self, engine: Engine) -> tuple[list[int], list[int]]:
        """Tokens and their values in micro-nats."""
        pieces = await self.answer(engine)
        return [t for piece in pieces for t in piece.tokens], [v for piece in pieces for v in piece.values_micro]
