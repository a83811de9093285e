"""How a result was checked and paid: shown to people, printed for programs, kept as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from ..protocol.checks import Standing
from ..protocol.errors import REGISTRY, Code, ConfigError
from ..protocol.identity import peer_id, short
from .environment import usable
from .output import Json, line, print_json, printable, remark, stderr

if TYPE_CHECKING:
    from ..client import Notice, PaidReceipt, Proof
    from ..protocol.checks import Verdict

ReceiptsFolder = Annotated[
    Path | None,
    Parameter(
        name="--receipts",
        help="Keep in this directory, or in this one file NAME.proof, the verdict and every signed record that it rests on.",
    ),
]

Openings = Annotated[
    bool,
    Parameter(
        name="--openings",
        help="Keep there, in plain, what was asked and answered, too: whoever has it can recompute the verdict.",
        negative=(),
    ),
]


def show_proof(verdict: Verdict | None, receipts: Sequence[PaidReceipt], notices: Sequence[Notice] = ()) -> None:
    """Verdict, objections, receipts and what the user should know are on stderr."""
    if verdict is None:
        remark("not checked (assurance none)")
    else:
        names = {"accepted": "green", "rejected": "red"}
        stderr.print(f"verdict: [bold {names.get(verdict.outcome, 'yellow')}]{verdict.outcome}[/] by {verdict.policy}")
        for finding in verdict.findings:
            if not finding.agrees:
                who = f"{finding.role} {short(finding.node)}"
                colour = "red" if finding.standing == Standing.REFUTED else "yellow"
                why = escape(printable(finding.reason))
                stderr.print(
                    f"  [{colour}]{escape(printable(finding.standing))}[/] {escape(who)}: {why}", soft_wrap=True
                )
    for paid in receipts:
        remark(
            f"receipt {paid.signed.id.hex()[:8]}  {paid.role:<8} {paid.executor[-8:]}  owner {paid.owner[:8]}  "
            f"{paid.entry} {paid.tokens} tokens, paid {paid.paid_ucr} of {paid.amount_ucr} ucr"
        )
    for notice in notices:
        line(f"notice: {notice.message} [{notice.code}]", console=stderr)
        line(f"  {REGISTRY[notice.code].advice}", console=stderr)


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the records of a job are kept, if they are."""

    folder: Path | None
    openings: bool

    @property
    def one_file(self) -> bool:
        return self.folder is not None and self.folder.suffix == ".proof"

    def prepare(self) -> None:
        """The directory is there, before anything is paid. Raises `ConfigError(bad_config)`."""
        if self.folder is None and self.openings:
            raise ConfigError(Code.BAD_CONFIG, "--openings goes with --receipts: it adds to what is kept there.")
        if self.folder is not None:
            with usable("--receipts", self.folder):
                (self.folder.parent if self.one_file else self.folder).mkdir(parents=True, exist_ok=True)

    def save(self, proof: Proof) -> None:
        """Every signed record behind a result is a file in the directory. Raises `ConfigError(bad_config)`."""
        if self.folder is None:
            return
        with usable("--receipts", self.folder):
            if self.one_file:
                self.folder.write_bytes(proof.file(openings=self.openings))
            else:
                proof.save(self.folder, openings=self.openings)
        remark(f"signed records kept in {self.folder}; check them with `fallow verify {self.folder}`")


@contextmanager
def rejection_shown(keep: Keep, as_json: bool) -> Iterator[None]:
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
        keep.save(rejected.proof)
        raise


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
                "standing": finding.standing,
                "reason": finding.reason,
                "due_ucr": finding.due_ucr,
                "withheld_ucr": finding.withheld_ucr,
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
