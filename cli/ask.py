"""`fallow generate` and `fallow embed`: a client on the command line."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from ..protocol.codec import INTEGER_MAX
from ..protocol.errors import Code, ConfigError
from ..protocol.limits import PRICE_MAX_UCR
from .environment import AsJson, Bootstrap, joined
from .output import Json, line, print_json, printable, progress, remark, stdout
from .proof import Keep, Openings, ReceiptsFolder, receipts_json, rejection_shown, show_proof, verdict_json

if TYPE_CHECKING:
    from ..client import Answer, TextStream

Seed = Annotated[
    int | None,
    Parameter(
        help="The same seed gives the same text, on any honest node.",
        validator=validators.Number(gte=0, lte=INTEGER_MAX),
    ),
]
ASSURANCE = "adaptive"
WORDS = (
    "adaptive, quorum:K/N, audit:PPM, committee:K/N or none; +anchor demands that somebody known agrees,"
    " +hedge:N has N executors race"
)
Assurance = Annotated[str, Parameter(help=f"How the result is checked: {WORDS}.")]
PriceCap = Annotated[
    int,
    Parameter(
        help="What an order may cost at the most, in micro-credits: the work is one, and each check of it. Of nodes that are "
        "dearer nothing is asked. `fallow prices` says what is usual.",
        validator=validators.Number(gte=0, lte=INTEGER_MAX),
    ),
]


async def generate(
    bundle: str,
    prompt: str,
    /,
    *,
    max_tokens: Annotated[int, Parameter(help="Tokens at most.")] = 256,
    temperature: Annotated[float, Parameter(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, Parameter(help="Choose among the likeliest tokens that make up this share.")] = 1.0,
    seed: Seed = None,
    assurance: Assurance = ASSURANCE,
    max_price: PriceCap = PRICE_MAX_UCR,
    receipts: ReceiptsFolder = None,
    openings: Openings = False,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """The text is on stdout as it comes (in a pipe: as it is verified), then verdict and receipts on stderr."""
    keep = Keep(receipts, openings)
    keep.prepare()
    with rejection_shown(keep, json), ExitStack() as waiting:
        waiting.enter_context(progress("asking the mesh"))
        async with joined(bootstrap) as mesh:
            stream = mesh.stream(
                bundle,
                prompt,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                assurance=assurance,
                price_max_ucr=max_price,
            )
            if json:
                async for _ in stream:
                    pass
            else:
                await (_show_live(stream, waiting) if stdout.is_terminal else _pipe(stream))
            answer = stream.answer
    if json:
        print_json(_answer_json(answer, assurance))
    else:
        for handover in answer.handovers:
            remark(f"went on at {handover.to_node[-8:]} after {handover.gap_ms} ms: {handover.reason}")
        show_proof(answer.verdict, answer.receipts, answer.notices)
    keep.save(answer.proof)


async def embed(
    bundle: str,
    texts: Annotated[list[str], Parameter(name="TEXT", negative=())],
    /,
    *,
    assurance: Assurance = ASSURANCE,
    max_price: PriceCap = PRICE_MAX_UCR,
    receipts: ReceiptsFolder = None,
    openings: Openings = False,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """One line for each text on stdout: its vector's length and first values; with --json the whole vectors."""
    if "" in texts:
        raise ConfigError(Code.BAD_CONFIG, "A TEXT is empty: there is nothing in it to turn into a vector.")
    keep = Keep(receipts, openings)
    keep.prepare()
    with rejection_shown(keep, json), progress("asking the mesh"):
        async with joined(bootstrap) as mesh:
            vectors = await mesh.embed(bundle, texts, assurance=assurance, price_max_ucr=max_price)
    if json:
        print_json(
            {
                "vectors": [list(vector) for vector in vectors],
                "assurance": assurance,
                "verdict": verdict_json(vectors.verdict),
                "receipts": receipts_json(vectors.receipts),
                "usage": {"prompt_tokens": vectors.usage.prompt_tokens},
            }
        )
    else:
        for text, vector in zip(texts, vectors, strict=True):
            values = ", ".join(f"{value:+.4f}" for value in vector[:6])
            line(f"{text!r}: {len(vector)} values [{values}, ...]")
        show_proof(vectors.verdict, vectors.receipts)
    keep.save(vectors.proof)


async def _show_live(stream: TextStream, waiting: ExitStack) -> None:
    """Each chunk as it comes. If checkers take text back, that is said, and the text that stands is shown again."""
    text = ""
    try:
        async for chunk in stream:
            waiting.close()  # whatever moves would write over the text
            if chunk.retracted:
                text = text[: chunk.length]
                _write("\n")
                remark("the checkers disagree with the end of this; what stands, and how it goes on:")
                _write(text)
            text += chunk.text
            _write(chunk.text)
    finally:
        _write("\n")  # whatever is said next, that it broke off included, has its own line


async def _pipe(stream: TextStream) -> None:
    """Only what no check can take back: whoever reads a pipe cannot be told to forget."""
    from ..client.gateway_text import SettledText

    settled = SettledText()
    async for chunk in stream:
        sys.stdout.write(settled.take(chunk))
        sys.stdout.flush()
    sys.stdout.write(settled.finish(stream.answer.text) + "\n")
    sys.stdout.flush()


def _write(text: str) -> None:
    """More of a line, on a terminal."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def _answer_json(answer: Answer, assurance: str) -> Json:
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "assurance": assurance,
        "verdict": verdict_json(answer.verdict),
        "receipts": receipts_json(answer.receipts),
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
        },
        "unpaid_ucr": answer.unpaid_ucr,
        "notices": [
            {"code": n.code, "message": n.message, "node": n.node, "tokens": n.tokens, "unpaid_ucr": n.unpaid_ucr}
            for n in answer.notices
        ],
        "handovers": [
            {"from": h.from_node, "to": h.to_node, "reason": h.reason, "gap_ms": h.gap_ms} for h in answer.handovers
        ],
    }
