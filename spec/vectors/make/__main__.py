"""Write the test vectors: `python -m spec.vectors.make` in the repository's root.

With `--check` nothing is written: the stale files are named, and the exit status is 1 if there is one. Nothing of the
package `fallow` is used: what its functions say is held against these files, and not the other way round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import (
    chance,
    channels,
    deliveries,
    disputes,
    encoding,
    envelopes,
    evidence,
    grid,
    jobs,
    judging,
    messages,
    names,
    records,
    settlements,
    trust,
    verdicts,
    witnesses,
)  # fmt: skip
from .notation import Case, file_text
from .requirements import by_case

VECTORS = Path(__file__).parent.parent

KINDS: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "codec": ("Bytes that are, and bytes that are not, the one encoding of a value.", encoding.codec),
    "framing": ("The frames in what was read from a stream.", encoding.framing),
    "ed25519": ("Signatures on which verifiers are known to disagree.", encoding.ed25519),
    "envelope": ("Signed records as they arrive, verified as one kind and one signer's.", envelopes.envelope),
    "record": ("Records signed from their fields, and payloads read as records.", records.record),
    "message": ("Frames of a stream read as messages.", messages.message),
    "plaintext": ("What was sealed, read.", messages.plaintext),
    "identity": ("Keys and content hashes, and their text forms.", names.identity),
    "names": ("Keys of the DHT, and the version of a protocol that two peers speak.", names.names),
    "published": ("Values of the DHT: which may stand under which key.", names.published),
    "digest": ("What is committed to, from what is committed.", chance.digest),
    "transcript": ("The rolling hash over what was delivered.", chance.transcript),
    "price": ("What is owed for what was used.", chance.price),
    "policy": ("The texts of policies.", chance.policy),
    "audit": ("Whether chance has a window checked.", chance.audit),
    "sortition": ("Whom chance calls to a committee.", chance.sortition),
    "mandate": ("For whom a node works.", trust.mandate),
    "profile": ("What a node says of itself, and whether a person can wait for it.", trust.profile),
    "witness": ("What others say of a node's connection, and what a client goes by.", witnesses.witness),
    "order": ("Orders, held against a node's terms.", trust.order),
    "job": ("Moves of one job, seen by one side.", jobs.job),
    "delivery": ("What came under an order, and the receipts for it, seen by the client.", deliveries.delivery),
    "channel": ("Vouchers, forfeits and the closing of a channel, seen by one side.", channels.channel),
    "grid": ("Orders to shed load, rosters and leases.", grid.grid),
    "evidence": ("Faults that prove themselves.", evidence.evidence),
    "agreement": ("Whether results lie near enough, and enough owners came to the same.", judging.agreement),
    "opening": ("What was asked and answered under one order.", verdicts.opening),
    "verdict": ("What the evidence about a piece of work supports.", verdicts.verdict),
    "dispute": ("What a judge decides between the two sides of an order.", disputes.dispute),
    "settlement": ("The credits that follow from a verdict.", settlements.settlement),
}
"""Kind -> what its file is about, and its cases."""


def main(arguments: Sequence[str] | None = None, folder: Path = VECTORS) -> int:
    parser = argparse.ArgumentParser(prog="spec.vectors.make", description="Write the test vectors.")
    parser.add_argument("--check", action="store_true", help="name the stale files and write nothing")
    check = parser.parse_args(arguments).check
    wanted = texts()
    stale = [name for name, text in wanted.items() if _read(folder / name) != text]
    strange = [path.name for path in sorted(folder.glob("*.json")) if path.name not in wanted]
    for name in [*stale, *strange]:
        print(f"vectors: {name} {'is stale: write the vectors again' if check else 'is written'}")
    if check:
        return 1 if stale or strange else 0
    for name in stale:
        (folder / name).write_text(wanted[name], "utf-8")
    for name in strange:
        (folder / name).unlink()
    return 0


def texts() -> dict[str, str]:
    """Every file's text by its name."""
    cases = {kind: list(make()) for kind, (_, make) in KINDS.items()}
    ids = [f"{kind}/{case.words}" for kind, listed in cases.items() for case in listed]
    if doubled := {id for id in ids if ids.count(id) > 1}:
        raise LookupError(f"two cases are called {sorted(doubled)[0]}")
    proofs = by_case(ids)
    return {f"{kind}.json": file_text(kind, KINDS[kind][0], listed, proofs) for kind, listed in cases.items()}


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
