"""What a chaos run's clients ask for: a fixed set of texts and vectors, drawn by the seed, and how each came out."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

TEXT, VECTORS = "text", "vectors"
JOBS: Final = "jobs.jsonl"
"""Of a run's folder."""
PROMPTS: Final = (
    "Why is the sky blue?", "Tell me a story about a parked car.", "What is the capital of France?", "Count to twenty.",
    "Explain what a receipt is.", "Who are you?", "Name five rivers of Europe.", "What does a battery do at night?",
)  # fmt: skip
TEXTS: Final = (
    "The car is parked.",
    "A vehicle stands still.",
    "Bread is baked in an oven.",
    "The robot is in its dock.",
)
TOKENS: Final = (24, 48, 64)
VECTOR_SHARE: Final = 0.2
"""Of the errands, so many are about vectors."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to ask for."""

    what: str
    prompt: int
    """Which of the prompts, or the first of the two texts."""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One errand, from the question to its end, as its client saw it."""

    client: int
    number: int
    errand: Errand
    began_ms: int
    """On the machine's clock."""
    took_ms: int = 0
    first_token_ms: int = 0
    """Of a text; 0 of vectors."""
    gaps_ms: tuple[int, ...] = ()
    """Of each handover in mid-text: between the reader's last token before and the first after."""
    handovers: tuple[str, ...] = ()
    """Why the node before could not go on."""
    executors: tuple[str, ...] = ()
    verdict: str = ""
    """Empty if nobody checked it."""
    tokens: tuple[int, ...] = ()
    rows: str = ""
    """Vectors: base64 of float32, row after row."""
    code: str = ""
    """Why there is no result; empty if there is one."""
    message: str = ""
    done: bool = False
    """It came to its end, with a result or without."""

    @property
    def completed(self) -> bool:
        return self.done and not self.code

    @property
    def accepted(self) -> bool:
        """There is a result, and whoever checked it accepted it."""
        return self.completed and self.verdict == "accepted"

    def line(self) -> str:
        """As it stands in `jobs.jsonl`."""
        return json.dumps(asdict(self)) + "\n"


def errands(seed: int, client: int) -> Iterator[Errand]:
    """What this client asks for, one thing after another, without end."""
    chance = Random(f"errands {seed} {client}")
    while True:
        if chance.random() < VECTOR_SHARE:
            yield Errand(VECTORS, chance.randrange(len(TEXTS)))
        else:
            yield Errand(TEXT, chance.randrange(len(PROMPTS)), chance.choice(TOKENS))


def texts_of(errand: Errand) -> list[str]:
    """The two texts whose vectors are asked for."""
    return [TEXTS[errand.prompt], TEXTS[(errand.prompt + 1) % len(TEXTS)]]


def packed(rows: Sequence[Sequence[float]]) -> str:
    """Vectors as they stand in a job's line."""
    return base64.b64encode(b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)).decode()


def unpacked(rows: str, count: int) -> list[tuple[float, ...]]:
    """The vectors again, of which there are so many."""
    plain = base64.b64decode(rows)
    width = len(plain) // 4 // count
    return [struct.unpack_from(f"<{width}f", plain, 4 * width * index) for index in range(count)]


def read(path: Path) -> list[Job]:
    """Every job of the file, each as of its last line: one that was asked and never came to an end is there, not `done`."""
    jobs: dict[tuple[int, int], Job] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        job = _job(json.loads(line))
        jobs[job.client, job.number] = job
    return list(jobs.values())


def _job(fields: dict[str, Any]) -> Job:
    lists = {name: tuple(fields[name]) for name in ("gaps_ms", "handovers", "executors", "tokens")}
    return Job(**{**fields, **lists, "errand": Errand(**fields["errand"])})
