"""Opened work, run again by an engine of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..node.engine.engine import Engine
from ..node.engine.messages import EngineJob
from ..node.engine.sealing import PieceSealer, seal_input
from ..node.machine import chance
from ..protocol.work import Input, Piece, decode_piece_untrusted
from ..verifier.rerun import Run

Seal: TypeAlias = Callable[[bytes, bytes, bytes], bytes]
"""An input to the worker with a key, for an order."""


async def rerun(engine: Engine, bundle: bytes, run: Run, seal: Seal = seal_input) -> Piece:
    """The last piece of the work's result: for a call its rows, for a text the figures of all its claimed tokens.

    Raises `EngineError` if the worker cannot do it.
    """
    draw = chance().randbytes
    plain, order = Input(draw(32), draw(32), run.work.encode()), draw(32)
    job = EngineJob(
        id=order,
        bundle=bundle,
        client=draw(32),
        entry=run.entry,
        parameters=run.parameters,
        input_digest=plain.digest,
        input_tokens=run.work.input_tokens,
        sealed=seal(engine.hpke_key, order, plain.encode()),
        calls=run.work.calls,
    )
    sealer, piece = PieceSealer(plain.reply_secret, order), Piece()
    async for answer in engine.submit(job):
        piece = decode_piece_untrusted(sealer.open(answer.index, answer.sealed))
    return piece
