"""A bundle of the simulated model: a signed manifest and a tokenizer, as real ones have, and no programs that anybody runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nacl.signing import SigningKey

from ....client.bundles import Bundles, ClientBundle
from ....client.nodes import Node
from ....client.tokenizer import Tokenizer
from ....node.engine.messages import Rates
from ....protocol.bundle import CALL, GENERATE, SCORE, File, Manifest, Program, Tensor, Tolerance
from ....protocol.envelope import Signed, sign
from ....protocol.identity import cid, content_hash
from ..scenario import Bundle
from . import model
from .chance import chance_for
from .engine import COLUMNS

CONTEXT_TOKENS: Final = 8192
TOLERANCE: Final = Tolerance(
    value_micro=1000, gap_micro=1000, mass_ppm=1000, samples=72, false_reject_ppm=0, cheats=(),
    calibrated_by="the tolerance of smollm2-135m-instruct's manifest",
)  # fmt: skip
NOTHING: Final = File(1, (content_hash(b"\0"),))


@dataclass(frozen=True)
class SimBundle:
    """What nodes and clients hold of one."""

    signed: Signed[Manifest]
    client: ClientBundle
    given: Bundle
    """As the scenario has it."""

    def rates(self, speed: float) -> Rates:
        """Of a machine of that speed, as its worker measures them: in thousandths a second."""
        each = self.given
        return Rates(
            prefill_milli=max(1, round(1000 * each.input_tokens_per_s * speed)),
            decode_milli=max(1, round(1000 * each.output_tokens_per_s * speed)),
            score_milli=max(1, round(1000 * each.output_tokens_per_s * each.check_factor * speed)),
            call_milli=max(1, round(1000 * each.calls_per_s * speed)),
        )


class KnownBundles(Bundles):
    """A client's bundles, none of which it has to fetch."""

    def __init__(self, bundles: Sequence[SimBundle]) -> None:
        self._known = {cid(each.signed.id): each.client for each in bundles}

    async def open(self, name: str, nodes: Sequence[Node]) -> ClientBundle:
        return self._known[name]


def make_bundle(given: Bundle, seed: int, weights: File = NOTHING) -> SimBundle:
    """The scenario's bundle, published by somebody whom all trust."""
    publisher = SigningKey(chance_for(seed, "publisher").randbytes(32))
    manifest = Manifest(
        name=given.name, family="simulated", licence="CC0-1.0", provenance="testnet.simnet: no weights at all",
        entries=(GENERATE, SCORE, CALL), weights=weights, parameters=(), state=(), inputs=(),
        outputs=(Tensor("result", "float32", (COLUMNS,)),),
        programs=(Program("call", "call", 1, 1, CONTEXT_TOKENS, NOTHING, 0, 0),),
        tokenizer=NOTHING, chat_template=None, context_tokens_max=CONTEXT_TOKENS, end_tokens=(model.END,),
        tolerance=TOLERANCE,
    )  # fmt: skip
    signed = sign(manifest, publisher)
    return SimBundle(signed, ClientBundle(given.name, signed, Tokenizer(manifest, _words())), given)


def _words() -> bytes:
    """A tokenizer whose every token is a word."""
    vocabulary = {f"w{token}": token for token in range(model.VOCABULARY)}
    parts = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    nothing: dict[str, object] = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    words: dict[str, object] = {"pre_tokenizer": {"type": "Whitespace"}, "model": parts}
    whole = {"version": "1.0", "added_tokens": [], **words, **nothing}
    return json.dumps(whole).encode()
