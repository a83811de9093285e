"""How a result was checked and paid: shown to people, printed for programs, kept as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from ..protocol.identity import peer_id, short
from .environment import usable
from .output import Json, print_json, printable, remark, stderr

if TYPE_CHECKING:
    from ..client import PaidReceipt, Proof
    from ..protocol.checks import Verdict

ReceiptsFolder = Annotated[
    Path | None, Parameter(name="--receipts", help="Keep every signed record of this job in this directory.")
]


def show_proof(verdict: Verdict | None, receipts: Sequence[PaidReceipt]) -> None:
    """Verdict, objections and receipts are on stderr."""
    if verdict is None:
        remark("not checked (assurance none)")
    else:
        names = {"accepted": "green", "rejected": "red"}
        stderr.print(f"verdict: [bold {names.get(verdict.outcome, 'yellow')}]{verdict.outcome}[/] by {verdict.policy}")
        for finding in verdict.findings:
            if not finding.agrees:
                who = f"{finding.role} {short(finding.node)}"
                stderr.print(f"  [red]disagrees[/] {escape(who)}: {escape(printable(finding.reason))}", soft_wrap=True)
    for paid in receipts:
        remark(
            f"receipt {paid.signed.id.hex()[:8]}  {paid.role:<8} {paid.executor[-8:]}  owner {paid.owner[:8]}  "
            f"{paid.entry} {paid.tokens} tokens, paid {paid.paid_ucr} of {paid.amount_ucr} ucr"
        )


def prepare(folder: Path | None) -> None:
    """The directory is there, before anything is paid. Raises `ConfigError(bad_config)`."""
    if folder is not None:
        with usable("--receipts", folder):
            folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def rejection_shown(folder: Path | None, as_json: bool) -> Iterator[None]:
    """If no result could be accepted, that has its verdict, receipts and records too: shown and kept as those of any other.

    The error then goes on to whoever shows errors; with `as_json`, it is in the one object as well.
    """
    from ..client import Rejected

    try:
        yield
    except Rejected as rejected:
        if as_json:
            print_json(
                {
                    "error": {"code": str(rejected.code), "message": rejected.message},
                    "verdict": verdict_json(rejected.verdict),
                    "receipts": receipts_json(rejected.receipts),
                }
            )
        else:
            show_proof(rejected.verdict, rejected.receipts)
        save(rejected.proof, folder)
        raise


def save(proof: Proof, folder: Path | None) -> None:
    """Every signed record behind a result is a file in the directory. Raises `ConfigError(bad_config)`."""
    if folder is None:
        return
    with usable("--receipts", folder):
        proof.save(folder)
    remark(f"signed records kept in {folder}; check them with `fallow verify {folder}`")


def verdict_json(verdict: Verdict | None) -> Json:
    """The verdict with everybody's finding; null if nothing was checked."""
    if verdict is None:
        return None
    return {
        "outcome": verdict.outcome,
        "policy": verdict.policy,
        "findings": [
            {
                "node": peer_id(finding.node),
                "owner": finding.owner.hex(),
                "role": finding.role,
                "agrees": finding.agrees,
                "reason": finding.reason,
                "due_ucr": finding.due_ucr,
            }
            for finding in verdict.findings
        ],
    }


def receipts_json(receipts: Sequence[PaidReceipt]) -> Json:
    """Each receipt, and what was paid for it."""
    return [
        {
            "id": paid.signed.id.hex(),
            "executor": paid.executor,
            "owner": paid.owner,
            "role": paid.role,
            "entry": paid.entry,
            "tokens": paid.tokens,
            "amount_ucr": paid.amount_ucr,
            "paid_ucr": paid.paid_ucr,
        }
        for paid in receipts
    ]
