"""`fallow dispute`: either side of an order takes the other before the judges that both agreed on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter
from nacl.signing import SigningKey

from ..client.wallet_file import channel_and_vouchers
from ..node import private
from ..node.config import default_home
from ..node.durable import put
from ..node.journal import of_receipt
from ..node.keys import load_or_create
from ..node.log import wall_ms
from ..node.rails.opening import FOLDER as RAILS
from ..node.rails.opening import open_ledger
from ..node.trust import TrustList
from ..protocol.disputes import BY_PAYER, Decided, Dispute, Kind, decision_id, share_ucr
from ..protocol.envelope import Signed, verify_any_signer_untrusted
from ..protocol.errors import Code, ConfigError, NetworkError, Refused
from ..protocol.grounds import DRAWN
from ..protocol.identity import short
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel
from ..protocol.proofs import PROOF_BYTES_MAX, ProofFile, decode_proof_untrusted
from ..protocol.receipts import Receipt
from ..protocol.records import identify_untrusted
from .environment import AsJson, Bootstrap, bootstrap_addresses, hex_of_32, state_given, usable
from .output import line, needing, print_json, printable, progress, remark

if TYPE_CHECKING:
    from ..client.contesting import Contested
    from ..client.telling import Told
    from ..node.network.seam import Network

    _Claim: TypeAlias = tuple[Contested, dict[bytes, Signed[Any]], tuple[bytes, ...]]

FOLDER = "decisions"
"""In the user's home: what judges have signed, for `fallow verify`."""
DAY_S = 86_400


async def dispute(
    kind: str,
    receipt: str,
    /,
    *,
    proof: Annotated[
        Path | None, Parameter(help="Of a client: the proof of the answer, kept by `--receipts NAME.proof --openings`.")
    ] = None,
    state: Annotated[
        Path | None, Parameter(help="Of a node's owner: the node's state directory, or its folder.")
    ] = None,
    fee: Annotated[
        int, Parameter(help="For three judges, in micro-credits, a third each: whoever is wrong bears it.")
    ] = 0,
    answer_s: Annotated[int, Parameter(help="For so long the accused may answer.")] = DAY_S,
    at: Annotated[
        list[str] | None, Parameter(help="Where the node of the order is: it is asked there, and told of the decision.")
    ] = None,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """What two of the three judges decide about the receipt (its id in hex) is said, and kept in `decisions`.

    What a client wins is taken off what it holds of the node's pay; what the node owes beyond that is set off. Each judge that
    has decided is owed its third of the fee by you; if the other side has lost, it owes you as much.

    Kinds of a client's claim: wrong, two-faced, disowned. Of a node's: unpaid, mismatched, unopened. While the accused may
    still answer, the command says for how long: repeat it then.
    """
    with needing("node"):
        from ..client.contesting import bring, claim
        from ..node.network.mesh import open_network
        from ..node.network.table_rules import profile_rules
    if fee % DRAWN:
        raise ConfigError(Code.BAD_CONFIG, f"A fee is for {DRAWN} judges, a part each: say a multiple of {DRAWN}.")
    if kind not in Kind.__members__.values():
        raise ConfigError(Code.BAD_CONFIG, f"No dispute is about {kind!r}; there are {', '.join(Kind)}.")
    if (proof is None) is (state is None) or (kind in BY_PAYER) is (proof is None):
        raise ConfigError(Code.BAD_CONFIG, "A client's claim comes with --proof, a node's with --state.")
    home, id = default_home(), hex_of_32(receipt, "receipt's id of 64 hex digits; `fallow verify` shows it.")
    if proof is not None:
        key = load_or_create(home / "keys" / "client")
        contested, records, openings = _of_proof(proof, id, home)
    else:
        assert state is not None
        state = state_given(state)
        key = load_or_create(state / "node.key")
        contested, records, openings = _of_journal(state, id, home)
    whole = ProofFile(tuple(one.envelope for one in records.values()), openings).encode()
    whole, made = _begun(home, kind, id, whole) or (
        whole,
        claim(Kind(kind), contested, whole, key, wall_ms(), fee_ucr=fee, answer_ms=answer_s * 1000),
    )
    _keep(home, f"{kind}-{id.hex()}.proof", whole)
    _keep(home, f"{kind}-{id.hex()}.cose", made.envelope)
    join = list(at) if at else bootstrap_addresses(bootstrap)
    with progress("before the judges"):
        async with open_network(secrets.token_bytes(32), [], join, profile_rules(wall_ms), mode="client") as network:
            verifiers, where = TrustList.load(home).verifiers, tuple(at or ())
            decided = await bring(network, verifiers, contested, made, whole, key, wall_ms(), addresses=where)
            for signed in decided.decisions:
                _keep(home, f"decision-{signed.id.hex()}.cose", signed.envelope)
            why_not = ""
            if proof is not None:
                told = await _take_off(home, key, network, where, decided)
            else:
                told, why_not = await _tell(network, where, decided)
    _say(decided, told, why_not, as_json=json)


async def _tell(network: Network, where: tuple[str, ...], decided: Decided) -> tuple[Told, str]:
    """Whether the node has on disk what was decided, and why not: that takes nothing from the decision."""
    from ..client.contesting import tell
    from ..client.telling import Told

    try:
        return Told(0, bool(where) and await tell(network, where, decided)), ""
    except (Refused, NetworkError) as error:
        return Told(0, False), error.message


async def _take_off(home: Path, key: SigningKey, network: Network, where: tuple[str, ...], decided: Decided) -> Told:
    """What the payer may take off what it holds is forfeited, by this process unless another one has the channel now."""
    from ..client.contesting import take_off
    from ..client.desk import Desk
    from ..client.settling import Settler
    from ..client.wallet import Wallet
    from ..client.wallet_books import wallet_books

    books = wallet_books(home / "wallet.db", bytes(key.verify_key))
    with closing(Wallet(home / "wallet.db", key)) as wallet, closing(open_ledger(home / RAILS, key, books)) as ledger:
        desk = Desk(network, wallet, Settler(network, wallet.confirmed), key, wall_ms, ledger=ledger)
        told = await take_off(desk, where, decided)
        await desk.settler.flush()
        return told


def _begun(home: Path, kind: str, id: bytes, whole: bytes) -> tuple[bytes, Signed[Dispute]] | None:
    """What was brought before about this receipt: brought again, it is the same dispute."""
    path = home / FOLDER / f"{kind}-{id.hex()}.cose"
    try:
        envelope, whole = path.read_bytes(), path.with_suffix(".proof").read_bytes()
    except OSError:
        return None
    return whole, verify_any_signer_untrusted(Dispute, envelope)


def _keep(home: Path, name: str, content: bytes) -> None:
    folder = home / FOLDER
    with usable("FALLOW_HOME", folder):
        private.folder(folder)
        put(folder / name, content)


def _of_proof(path: Path, receipt: bytes, home: Path) -> _Claim:
    """What a client kept of an answer, with the channel that its wallet has."""
    with usable("--proof", path), path.open("rb") as stream:
        file = decode_proof_untrusted(stream.read(PROOF_BYTES_MAX + 1))
    records: dict[bytes, Signed[Any]] = {one.id: one for one in map(identify_untrusted, file.records)}
    order = _order(records, receipt)
    envelopes = channel_and_vouchers(home / "wallet.db", order.record.channel)
    records |= {one.id: one for one in map(identify_untrusted, envelopes)}
    return _contested(records, receipt), records, file.openings


def _of_journal(state: Path, receipt: bytes, home: Path) -> _Claim:
    """What a node's journal has of the receipt's order, with the manifest that is on this machine."""
    records: dict[bytes, Signed[Any]] = {one.id: one for one in map(identify_untrusted, of_receipt(state, receipt))}
    order = _order(records, receipt)
    with needing("node"):
        from ..node.engine.bundles import BundleStore
    for bundle in BundleStore(home / "store").list():
        if bundle.hash == order.record.bundle:
            records[bundle.hash] = bundle.signed
    return _contested(records, receipt), records, ()


def _order(records: Mapping[bytes, Signed[Any]], receipt: bytes) -> Signed[JobOrder]:
    found = records.get(receipt)
    order = records.get(found.record.order) if found and isinstance(found.record, Receipt) else None
    if order is None or not isinstance(order.record, JobOrder):
        raise ConfigError(Code.BAD_CONFIG, f"There is no receipt {receipt.hex()[:8]} with its order there.")
    return order


def _contested(records: Mapping[bytes, Signed[Any]], receipt: bytes) -> Contested:
    from ..client.contesting import Contested

    order = _order(records, receipt)
    channel = records.get(order.record.channel)
    if channel is None or not isinstance(channel.record, Channel):
        raise ConfigError(Code.BAD_CONFIG, "The channel of the order is not on this machine.")
    return Contested(channel, order, records[receipt])


def _say(decided: Decided, told: Told, why_not: str, *, as_json: bool) -> None:
    decision = decided.decisions[0].record
    part_ucr = share_ucr(decision.fee_ucr)
    if as_json:
        print_json(
            {
                "outcome": decision.outcome,
                "reason": decision.reason,
                "loser": decision.loser.hex(),
                "due_ucr": decision.due_ucr,
                "withheld_ucr": decision.withheld_ucr,
                "fee_ucr": decision.fee_ucr,
                "decision": decision_id(decision).hex(),
                "judges": len(decided.decisions),
                "forfeited_ucr": told.ucr,
                "each_judge_ucr": part_ucr,
                "told": told.arrived,
                "why_not_told": why_not,
            }
        )
        return
    line(f"{decision.outcome}, by {len(decided.decisions)} judges: {printable(decision.reason)}")
    line(
        f"{decision.due_ucr} ucr are due, {decision.withheld_ucr} are not; {short(decision.loser)} bears {decision.fee_ucr}."
    )
    if told.ucr:
        line(f"{told.ucr} ucr of what you held are forfeited.")
    if part_ucr:
        judges = ", ".join(short(signed.signer) for signed in decided.decisions)
        remark(f"You owe {part_ucr} ucr to each judge ({judges}): `fallow pay`.")
    if why_not:
        remark(f"The node has not taken it: {printable(why_not)} Repeat the command to tell it again.")
    elif not told.arrived:
        remark(
            "The node does not know it yet: say where it is with `--at ADDRESS`. A client that runs tells it again by itself."
        )
