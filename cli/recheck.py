"""`fallow verify --recheck`: opened work is run again on this machine, and held against what was signed for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ..client.rerunning import rerun
from ..node.config import default_home
from ..node.engine.bundles import BundleStore
from ..node.engine.engine import open_engine
from ..protocol.checks import Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from ..protocol.identity import cid, peer_id
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.policy import Policy
from ..verifier.case import Case, Part, Question, gather
from ..verifier.rerun import disowned, run_of


@dataclass(frozen=True, slots=True)
class Rerun:
    """What running one order's work again came to."""

    order: bytes
    node: bytes
    entry: str
    objection: str
    """Empty if the figures are the model's."""

    def __str__(self) -> str:
        who = f"{self.entry} by {peer_id(self.node)[-8:]}"
        return f"{who}: run again, and {self.objection or 'the figures are what this machine comes to'}"


def recheck(records: Iterable[Signed[Any]], openings: Iterable[Opening]) -> list[Rerun]:
    """Every opened answer that the verdicts among the records rest on was run again here.

    Raises `ConfigError(bad_config)` if there is nothing to run, or a bundle is not on this machine.
    """
    records, openings = list(records), list(openings)
    parts: dict[bytes, tuple[Part, Case]] = {}
    for case in _cases(records, openings):
        parts |= {part.order.id: (part, case) for part in case.parts if run_of(part)}
    if not parts:
        raise ConfigError(
            Code.BAD_CONFIG, "Nothing can be run again: no verdict with opened work is there (keep it with --openings)."
        )
    return trio.run(_run_all, parts)


def _cases(records: list[Signed[Any]], openings: list[Opening]) -> Iterable[Case]:
    known: Mapping[bytes, Signed[Any]] = {signed.id: signed for signed in records}
    for signed in records:
        verdict = signed.record
        if not isinstance(verdict, Verdict) or verdict.subject not in known:
            continue
        subject = known[verdict.subject]
        if not isinstance(subject.record, JobOrder):
            continue
        policy = Policy.parse(verdict.policy)
        question = Question(subject.signer, verdict.bundle, policy, verdict.commitment_nonce)
        try:
            yield gather(question, records, openings)
        except RemoteProtocolError:
            continue  # said of the verdict itself: it could not be recomputed


async def _run_all(parts: Mapping[bytes, tuple[Part, Case]]) -> list[Rerun]:
    store = BundleStore(default_home() / "store")
    cids = sorted({cid(case.question.bundle) for _, case in parts.values()})
    here = {bundle.cid for bundle in store.list()}
    if missing := [each for each in cids if each not in here]:
        raise ConfigError(
            Code.BAD_CONFIG, f"The bundle {missing[0]} is not on this machine: `fallow bundle fetch` brings it."
        )
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        async with open_engine(store, cids, log_path=Path(scratch, "worker.log")) as engine:
            for part, case in parts.values():
                run = run_of(part)
                assert run is not None
                piece = await rerun(engine, case.question.bundle, run)
                why = disowned(part, piece, case.tolerance) or ""
                found.append(Rerun(part.order.id, part.member.node, part.order.record.entry, why))
    return found
