"""An honest engine of one's own, with nothing between: what it computes is what a result has to be.

A text need not be the same word by word: where two tokens are as good as equally likely, honest machines may part. So a text
that differs is read by the engine as a checker would, and is right if each of its tokens is, within the bundle's tolerance,
the one that the model takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..client.tokenizer import Tokenizer
from ..node.engine.bundles import Bundle, BundleStore
from ..node.engine.engine import Engine, open_engine
from ..node.engine.messages import EngineJob
from ..node.engine.sealing import PieceSealer, seal_input
from ..node.trust import TrustList
from ..protocol.bundle import CALL, GENERATE, SCORE
from ..protocol.distance import distance, exact
from ..protocol.work import Input, Parameters, Piece, Work, decode_piece_untrusted
from ..verifier.compare import choice_disagreement, rows_of
from .errands import PROMPTS, TEXT, TOKENS, Job, texts_of, unpacked

LOG: Final = "reference.log"


@dataclass
class _Model:
    """One bundle in the engine."""

    engine: Engine
    bundle: Bundle
    tokenizer: Tokenizer

    async def run(self, entry: str, parameters: Parameters, work: Work) -> Piece:
        """All pieces of the answer, as one."""
        plain, order = Input(os.urandom(32), os.urandom(32), work.encode()), os.urandom(32)
        job = EngineJob(
            order, self.bundle.hash, os.urandom(32), entry, parameters, plain.digest, work.input_tokens,
            seal_input(self.engine.hpke_key, order, plain.encode()), calls=max(1, work.calls if entry == CALL else 1),
        )  # fmt: skip
        sealer = PieceSealer(plain.reply_secret, order)
        pieces = [
            decode_piece_untrusted(sealer.open(piece.index, piece.sealed)) async for piece in self.engine.submit(job)
        ]
        return Piece(
            tuple(token for piece in pieces for token in piece.tokens),
            tuple(value for piece in pieces for value in piece.values_micro),
            tuple(gap for piece in pieces for gap in piece.gaps_micro),
            tuple(mass for piece in pieces for mass in piece.masses_ppm),
            pieces[-1].tensor,
            pieces[-1].shape,
        )


async def wrong(home: Path, chat: str, embed: str, jobs: Iterable[Job], folder: Path) -> list[Job]:
    """Those of the jobs whose result is not what an honest engine gives. `folder` takes the engine's log.

    Raises `EngineError`, `ConfigError` or `StoreError` if there is no such engine here.
    """
    store, trust = BundleStore(home / "store"), TrustList.load(home)
    bundles = [store.open(trust.resolve(name).cid) for name in (chat, embed)]
    log = folder / LOG
    async with open_engine(store, [bundle.cid for bundle in bundles], log_path=log) as engine:
        texts, vectors = (_Model(engine, bundle, _tokenizer(bundle)) for bundle in bundles)
        judge = _Judge(texts, vectors)
        return [job for job in jobs if job.completed and not await judge.right(job)]


class _Judge:
    """What has been found out so far is kept: the same errands come again and again."""

    def __init__(self, texts: _Model, vectors: _Model) -> None:
        self._texts = texts
        self._vectors = vectors
        self._expected: dict[int, Sequence[int]] = {}
        self._read: dict[tuple[int, tuple[int, ...]], bool] = {}
        self._rows: dict[int, Piece] = {}

    async def right(self, job: Job) -> bool:
        return await (self._text(job) if job.errand.what == TEXT else self._vector(job))

    async def _text(self, job: Job) -> bool:
        ends = self._texts.bundle.manifest.end_tokens
        if not job.tokens or not (len(job.tokens) == job.errand.tokens or job.tokens[-1] in ends):
            return False
        prompt = self._texts.tokenizer.prompt(PROMPTS[job.errand.prompt])
        if job.errand.prompt not in self._expected:
            piece = await self._texts.run(GENERATE, Parameters(max(TOKENS)), Work((prompt,)))
            self._expected[job.errand.prompt] = piece.tokens
        if tuple(self._expected[job.errand.prompt][: len(job.tokens)]) == job.tokens:
            return True
        key = job.errand.prompt, job.tokens
        if key not in self._read:
            self._read[key] = await self._taken(prompt, job.tokens)
        return self._read[key]

    async def _taken(self, prompt: Sequence[int], tokens: Sequence[int]) -> bool:
        """Whether each of the tokens is one that the model may take there."""
        found = await self._texts.run(SCORE, Parameters(), Work(((*prompt, *tokens),), claimed=len(tokens)))
        tolerance = self._texts.bundle.manifest.tolerance
        return choice_disagreement(found.gaps_micro, found.masses_ppm, 1_000_000, tolerance) is None

    async def _vector(self, job: Job) -> bool:
        texts = texts_of(job.errand)
        if job.errand.prompt not in self._rows:
            work = Work(tuple(map(self._vectors.tokenizer.text, texts)))
            self._rows[job.errand.prompt] = await self._vectors.run(CALL, Parameters(), work)
        expected = rows_of(self._rows[job.errand.prompt])
        assert expected is not None, "an honest engine gives numbers"
        apart = distance(expected, exact(unpacked(job.rows, len(texts))))
        return apart is not None and apart <= self._vectors.bundle.manifest.tolerance.value_micro


def _tokenizer(bundle: Bundle) -> Tokenizer:
    manifest = bundle.manifest
    name = next(name for name, file in manifest.files().items() if file == manifest.tokenizer)
    return Tokenizer(manifest, (bundle.path / name).read_bytes())
