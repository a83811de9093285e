"""How a result was checked and paid: shown to people, printed for programs, kept as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from ..protocol.errors import Code, ConfigError
from ..protocol.identity import peer_id, short
from .output import Json, printable, remark, stderr

if TYPE_CHECKING:
    from ..client import Answer, Embeddings, PaidReceipt
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                Code.BAD_CONFIG, f"--receipts: {folder} cannot be made a directory: {error.strerror}."
            ) from None


def save(result: Answer | Embeddings, folder: Path | None) -> None:
    """Every signed record behind the result is a file in the directory. Raises `ConfigError(bad_config)`."""
    if folder is None:
        return
    try:
        result.save(folder)
    except OSError as error:
        raise ConfigError(
            Code.BAD_CONFIG, f"--receipts: {folder} cannot be written: {error.strerror}. The result stands without it."
        ) from None
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
