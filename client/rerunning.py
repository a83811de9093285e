"""Opened work, run again by an engine of one's own."""

from __future__ import annotations

import secrets

from ..node.engine.engine import Engine
from ..node.engine.messages import EngineJob
from ..node.engine.sealing import PieceSealer, seal_input
from ..protocol.work import Input, Piece, decode_piece_untrusted
from ..verifier.rerun import Run


async def rerun(engine: Engine, bundle: bytes, run: Run) -> Piece:
    """The last piece of the work's result: for a call its rows, for a text the figures of all its claimed tokens.

    Raises `EngineError` if the worker cannot do it.
    """
    plain, order = Input(secrets.token_bytes(32), secrets.token_bytes(32), run.work.encode()), secrets.token_bytes(32)
    job = EngineJob(
        id=order,
        bundle=bundle,
        client=secrets.token_bytes(32),
        entry=run.entry,
        parameters=run.parameters,
        input_digest=plain.digest,
        input_tokens=run.work.input_tokens,
        sealed=seal_input(engine.hpke_key, order, plain.encode()),
        calls=run.work.calls,
    )
    sealer, piece = PieceSealer(plain.reply_secret, order), Piece()
    async for answer in engine.submit(job):
        piece = decode_piece_untrusted(sealer.open(answer.index, answer.sealed))
    return piece
