"""Checkers of what machines say of one another, by gossip or before judges: each is one function, as in `checkers`."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ....node.network.standing import Fault as Blame
from ....node.paid import Fee, fees, payments
from ....protocol.disputes import UPHELD, Decision, Dispute, Kind, matter_id, reimbursed_ucr, share_ucr
from ....protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from .clients import WALLET
from .judges import DOCKET

if TYPE_CHECKING:
    from .simulation import Run

HEARD_S: Final = 60.0
"""From the first who knows of a fault until everybody does who was there meanwhile."""
THERE_S: Final = 30.0
"""And before: whoever has just started has not joined yet."""


def nobody_honest_is_blamed(run: Run) -> Iterator[str]:
    """What is believed of a key by gossip is true, and nobody who keeps to the rules is held to have passed on what is not."""
    guilty, names = _guilty(run), _names(run)
    for accused in {each.proven.accused for each in run.world.heard} - guilty:
        yield f"{names.get(accused, accused.hex()[:8])} has done nothing, and others believe that it has"
    cheats = {each.place.key for each in run.clients if each.attack} | {n.place.key for n in run.nodes if n.hostile}
    for by, key, fault in run.medium.blamed:
        if run.world.gossip and fault == Blame.BAD_RECORD and key not in cheats:
            yield f"machine {by} holds against {names.get(key, key.hex()[:8])} what it has sent"


def faults_reach_everybody(run: Run) -> Iterator[str]:
    """Who is there knows of a fault within a minute after the first who proved it."""
    places = [each.place for each in run.nodes] + [each.place for each in run.clients if not each.attack]
    first: dict[tuple[str, bytes], float] = {}
    known: dict[tuple[str, bytes], dict[int, float]] = {}
    for each in run.world.heard:
        key = str(each.proven.fault), each.proven.accused
        first.setdefault(key, each.at_s)
        known.setdefault(key, {}).setdefault(each.machine, each.at_s)
    for key, began_s in first.items():
        ends_s = began_s + HEARD_S
        there = (
            [place for place in places if place.was_there(began_s - THERE_S, ends_s)] if ends_s < run.ended_s else []
        )
        deaf = [place.number for place in there if known[key].get(place.number, ends_s + 1) > ends_s]
        if deaf:
            yield f"{key[0]}, known at {began_s:.0f} s: {len(deaf)} of {len(there)} had not heard of it, as machine {deaf[0]}"


def false_words_cost(run: Run) -> Iterator[str]:
    """Who slanders is believed by nobody and it counts against it; who loses before judges owes each of them its part."""
    slanders = [each for each in run.attacks if each.adversary == "slanderer"]
    makers = {each.place.key for each in run.clients if each.attack == "slanderers"}
    counted = sum(key in makers and fault == Blame.BAD_RECORD for _, key, fault in run.medium.blamed)
    believed = sum(not each.stopped_by for each in slanders)
    if believed:
        yield f"{believed} of {len(slanders)} false accusations were taken"
    if slanders and not counted:
        yield f"{len(slanders)} false accusations cost nobody anything"
    for state, dispute, decision in _docketed(run):
        owed = {each.party for each in fees(state, dispute.signer) if each.matter == matter_id(dispute.record)}
        if share_ucr(decision.fee_ucr) and dispute.signer not in owed:
            yield f"{state.name} has decided for nothing"


def fees_conserved(run: Run) -> Iterator[str]:
    """What each judge is owed is what the claimant owes it, and has paid; and that is the claimant's loss, or the accused's."""
    folder, judges = run.world.folder, {bytes(each.key.verify_key): f"judge-{each.place.number}" for each in run.judges}
    for number, decided in run.world.decided:
        dispute, decision = decided.dispute, decided.decisions[0].record
        matter = matter_id(dispute.record)
        own = _by_party(fees(folder / f"node-{number}"), matter)
        for signed in decided.decisions:
            theirs = _by_party(fees(folder / judges[signed.signer]), matter)
            if theirs.get(dispute.signer, 0) != -own.get(signed.signer, 0):
                yield f"node {number} owes its judge {-own.get(signed.signer, 0)} ucr, and that one counts {theirs}"
            paid = [
                each.ucr
                for each in payments(folder / judges[signed.signer], dispute.signer)
                if each.reference == matter.hex()
            ]
            if share_ucr(decision.fee_ucr) and paid != [share_ucr(decision.fee_ucr)]:
                yield f"node {number} has paid its judge {paid} ucr of {share_ucr(decision.fee_ucr)}"
        if own.get(dispute.record.accused, 0) != reimbursed_ucr(dispute.record, decision):
            yield f"node {number} counts {own.get(dispute.record.accused, 0)} ucr of its fee as the payer's"


def judgements_are_true(run: Run) -> Iterator[str]:
    """Of both sides that one loses which has not kept to the rules: the payer its receipt unpaid, or the payee who was paid, or
    whose work is wrong."""
    if sum(not each.character.honest for each in run.judges) > 1:
        return
    nodes, names = {each.place.key: each for each in run.nodes}, _names(run)
    wallets = {
        bytes(each.key.verify_key): run.world.folder / f"client-{each.place.number}" / WALLET for each in run.clients
    }
    for _, decided in run.world.decided:
        dispute, decision = decided.dispute.record, decided.decisions[0].record
        if not decision.fee_ucr:
            continue
        node, payer = nodes[decided.channel.record.payee], decided.order.signer
        if decision.outcome != UPHELD and dispute.kind in (Kind.UNPAID, Kind.MISMATCHED) and node.character.honest:
            yield f"node {node.place.number} has done good work, and bears the fee: {decision.reason}"
        if decision.outcome == UPHELD and _paid(wallets[payer], dispute.receipt):
            yield f"{names[payer]} has paid, and bears the fee: {decision.reason}"


def _guilty(run: Run) -> set[bytes]:
    """Keys that have signed what contradicts itself, or may have."""
    signers = {each.place.key for each in run.nodes if each.character.session}
    return signers | {bytes(each.key.verify_key) for each in run.clients if each.attack == "double_spenders"}


def _names(run: Run) -> Mapping[bytes, str]:
    names = {each.place.key: f"node {each.place.number}" for each in run.nodes}
    for client in run.clients:
        names[client.place.key] = names[bytes(client.key.verify_key)] = f"client {client.place.number}"
    return names


def _by_party(rows: list[Fee], matter: bytes) -> Counter[bytes]:
    found = Counter[bytes]()
    for each in rows:
        if each.matter == matter:
            found[each.party] += each.ucr
    return found


def _docketed(run: Run) -> Iterator[tuple[Path, Signed[Dispute], Decision]]:
    """What each judge has decided, and where its books are."""
    for judge in run.judges:
        state = run.world.folder / f"judge-{judge.place.number}"
        with closing(sqlite3.connect(state / DOCKET)) as docket:
            rows = docket.execute("SELECT envelope, decision FROM disputes WHERE decision IS NOT NULL").fetchall()
        for envelope, decision in rows:
            dispute = verify_untrusted(Dispute, envelope, signer=claimed_signer_untrusted(envelope))
            yield state, dispute, verify_untrusted(Decision, decision, signer=bytes(judge.key.verify_key)).record


def _paid(wallet: Path, receipt: bytes) -> bool:
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return database.execute("SELECT 1 FROM vouchers WHERE receipt = ?", (receipt,)).fetchone() is not None
