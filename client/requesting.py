"""What a caller asks for, as it is said to the SDK, made into requests: checked, and in tokens or arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..node.machine import chance
from ..protocol.errors import Code, Refused
from ..protocol.identity import peer_key_untrusted
from ..protocol.limits import OUTPUT_TOKENS_MAX, STOP_STRINGS_MAX
from ..protocol.work import Parameters, Work
from .arrays import Given, work_of
from .assurance import Assurance
from .bundles import ClientBundle
from .draft import TextRequest
from .functions import CallRequest
from .tokenizer import Prompt

SEEDS = 2**62
"""So many seeds there are to choose from; an order's seed is a 63-bit integer."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How work is checked, what it may cost, and who is to do it."""

    assurance: Assurance
    price_max_ucr: int
    executors: Sequence[str]
    """Peer ids, in the order in which they are preferred."""

    @property
    def preferred(self) -> tuple[bytes, ...]:
        """Keys of the executors. Raises `RemoteProtocolError` for what is no peer id."""
        return tuple(map(peer_key_untrusted, self.executors))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How long a text may become, and how its tokens are chosen."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    """Drawn by chance where chance matters, if it is not said."""
    stop: Sequence[str]

    def check(self) -> None:
        """Raises `Refused` (`too_large`, `bad_config`) for what no order can say."""
        if not 1 <= self.max_tokens <= OUTPUT_TOKENS_MAX:
            raise Refused(Code.TOO_LARGE, f"max_tokens is from 1 to {OUTPUT_TOKENS_MAX}, not {self.max_tokens}.")
        if not (0.0 <= self.temperature <= 10.0 and 0.0 < self.top_p <= 1.0):
            raise Refused(Code.BAD_CONFIG, "The temperature is from 0 to 10, and top_p above 0 and at most 1.")
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise Refused(Code.BAD_CONFIG, f"The seed is from 0 to {SEEDS - 1}, not {self.seed}.")
        if len(self.stop) > STOP_STRINGS_MAX or not all(self.stop):
            raise Refused(Code.BAD_CONFIG, f"There may be up to {STOP_STRINGS_MAX} stop strings, none of them empty.")

    def parameters(self, room_tokens: int) -> Parameters:
        """As an order says it, for an answer that has no more room than this."""
        drawn = self.seed is None and self.temperature > 0
        return Parameters(
            max_tokens=min(self.max_tokens, room_tokens),
            temperature_milli=round(self.temperature * 1000),
            top_p_ppm=round(self.top_p * 1_000_000),
            seed=chance().randrange(SEEDS) if drawn else (self.seed or 0),
        )


def text_request(opened: ClientBundle, prompt: Prompt, sampling: Sampling, terms: Terms) -> TextRequest:
    """Raises `Refused`: `input_too_long` for a prompt that leaves no room for an answer."""
    tokens, most = opened.tokenizer.prompt(prompt), opened.manifest.context_tokens_max
    if len(tokens) >= most:
        raise Refused(
            Code.INPUT_TOO_LONG, f"The prompt has {len(tokens)} tokens; {opened.name} takes {most} with the answer."
        )
    return TextRequest(
        opened,
        tokens,
        sampling.parameters(most - len(tokens)),
        tuple(sampling.stop),
        terms.assurance.policy,
        terms.price_max_ucr,
        terms.preferred,
        terms.assurance.hedge,
    )


def call_request(opened: ClientBundle, work: Work, terms: Terms) -> CallRequest:
    """The work, under these terms."""
    asked = terms.assurance
    return CallRequest(opened, work, asked.policy, terms.price_max_ucr, terms.preferred, asked.hedge)


def text_input(opened: ClientBundle, text: str) -> tuple[int, ...]:
    """The text's tokens. Raises `Refused`: `unknown_entry` for a function of arrays, `input_too_long`."""
    if opened.manifest.inputs:
        raise Refused(Code.UNKNOWN_ENTRY, f"{opened.name} is a function of arrays, not of texts: use `call`.")
    sequence = opened.tokenizer.text(text)
    if len(sequence) > (most := opened.manifest.context_tokens_max):
        raise Refused(Code.INPUT_TOO_LONG, f"A text of {len(sequence)} tokens; {opened.name} takes {most}.")
    return sequence


def one_input(opened: ClientBundle, given: Mapping[str, Given] | str) -> Work:
    """One call of the bundle's function. Raises `Refused` as `text_input` does, or `work_of`."""
    if isinstance(given, str):
        return Work((text_input(opened, given),))
    return work_of(opened.manifest, [given])
