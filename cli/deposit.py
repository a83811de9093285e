"""`fallow deposit`: ecash that is locked to somebody until a time, and yours again from then on unless they have taken it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..node.deposits import DAY_S, LATEST_S, LEAST_S
from ..node.durable import put
from ..node.log import wall_ms
from ..node.rails.deposits import REFERENCE_MAX, Made
from ..node.rails.fates import Deposit, Fate
from ..node.rails.rail import in_utc
from ..protocol.errors import Code, ConfigError, FallowError, NetworkError, Refused
from ..protocol.identity import short
from ..protocol.limits import HOLD_MS_MAX
from .environment import AsJson, usable
from .node import seconds_of
from .output import Json, line, needing, print_json, progress, remark, table
from .pay import check_amount, key_at
from .relying import relied_on
from .side import Side, Whose, side_of

RELIED_S: Final = HOLD_MS_MAX // 1000 + DAY_S
"""A deposit to a client counts while it lasts for longer than pay may be held: and a day for whoever makes it."""
KEY_HEX: Final = 66
"""Digits of a key of ecash."""
_WORDS: Final = {
    Fate.BEGUN: "begun: repeat `fallow deposit make`",
    Fate.LOCKED: "locked",
    Fate.OVER: "over: `fallow deposit back` takes it back",
    Fate.TAKEN: "taken by its payee",
    Fate.BACK: "taken back",
    Fate.UNKNOWN: "not known: the mint does not answer",
}


async def make(
    payee: Annotated[str, Parameter(help="A node's address (/ip4/.../p2p/12D3K...), or a client's key of ecash.")],
    ucr: Annotated[int, Parameter(help="Micro-credits, rounded up to whole units of the mint.")],
    /,
    *,
    reference: Annotated[str, Parameter(help="Your name for it: the same one is made once, and taken back by it.")],
    span: Annotated[str, Parameter(name="--for", help="How long it is locked: 30d, say.")] = "30d",
    out: Annotated[Path | None, Parameter(help="For a client's key: the file to give to the client.")] = None,
    state: Whose = None,
    json: AsJson = False,
) -> None:
    """Ecash out of the purse is locked to the payee: it can take it until then, and afterwards it is yours again.

    A client makes one for a node that does not know it: it is lent so much more there. The node takes it a day before its time,
    all of it, if anything is owed then, and counts it as paid. An owner makes one for a client (`fallow purse show` gives the
    client's key), who then relies on the owner's nodes: `fallow deposit rely`.

    Whatever ends the command, repeat it: the same reference locks nothing twice.
    """
    check_amount(ucr, reference)
    if len(reference) > REFERENCE_MAX or not reference.isprintable():
        raise ConfigError(Code.BAD_CONFIG, f"--reference: at most {REFERENCE_MAX} characters that can be printed.")
    to_node = payee.startswith("/")
    lasts_s, least_s = seconds_of(span), LEAST_S + 3600 if to_node else RELIED_S
    if lasts_s < least_s:
        raise ConfigError(Code.BAD_CONFIG, f"--for: {-(-least_s // DAY_S)}d at least; less secures nothing.")
    if to_node and lasts_s > LATEST_S:
        raise ConfigError(Code.BAD_CONFIG, f"--for: {LATEST_S // DAY_S}d at most: no node holds one for longer.")
    if to_node is (out is not None):
        raise ConfigError(Code.BAD_CONFIG, "A deposit for a client's key needs --out, and one for a node none.")
    with side_of(state) as side, side.deposits.making():
        until_s = wall_ms() // 1000 + lasts_s
        if to_node:
            made = await _for_node(side, payee, ucr, reference, until_s)
        else:
            assert out is not None
            made = _for_client(side, payee, ucr, reference, until_s, out)
    if json:
        print_json(_as_json(made))
    else:
        until = in_utc(made.made.until_s)
        line(f"{made.ucr} ucr are locked until {until}, and {'the node has them' if to_node else out}.")


async def _for_node(side: Side, node: str, ucr: int, reference: str, until_s: int) -> Deposit:
    with needing("node"):
        from ..client.paying import hand_over, paid_at
        from ..node.network.mesh import open_network
        from ..node.network.table_rules import profile_rules
    key, purse = key_at(node), side.purse
    with progress("making a deposit"):
        async with open_network(secrets.token_bytes(32), [], [node], profile_rules(wall_ms), mode="client") as network:
            before = _begun(side, reference)
            address = before.address if before else await paid_at(network, key, (node,), purse.name)
            made = side.deposits.begin(Made(reference, key, address, node, ucr, until_s))
            means = _locked(side, made)
            kept = f"It is locked all the same, and yours again on {in_utc(made.until_s)} (`fallow deposit back`)."
            try:
                await hand_over(network, key, (node,), means)
            except Refused as refused:
                raise Refused(refused.code, f"The node did not take the deposit: {refused.message} {kept}") from None
            except NetworkError as error:
                again = "Repeat the command, and the node is given it."
                raise NetworkError(error.code, f"{error.message} {kept} {again}") from None
    return _handed(side, reference, node, means)


def _for_client(side: Side, key: str, ucr: int, reference: str, until_s: int, out: Path) -> Deposit:
    try:
        payee = bytes.fromhex(key)[1:]
    except ValueError:
        payee = b""
    if len(key) != KEY_HEX or len(payee) != 32:
        message = f"{key[:120]!r} is neither a node's address nor a key of {KEY_HEX} digits, as `fallow purse show` has"
        raise ConfigError(Code.BAD_CONFIG, f"{message} it.")
    before, place = _begun(side, reference), str(out.absolute())
    if out.exists() and (before is None or before.place != place):
        raise ConfigError(Code.BAD_CONFIG, f"{out} is there already, and was kept: name another file.")
    made = side.deposits.begin(Made(reference, payee, key, place, ucr, until_s))
    means = _locked(side, made)
    with usable("--out", out):
        put(out, means)
    return _handed(side, reference, place, means)


def _begun(side: Side, reference: str) -> Made | None:
    """The deposit of this reference, if anything of it is locked or asked for; what nothing came of is forgotten. Raises
    `Refused` for one that is over, taken or taken back."""
    made = side.deposits.made(reference)
    if made is None:
        return None
    fate = side.fates.look_at(made, wall_ms() // 1000).fate
    if fate in (Fate.TAKEN, Fate.BACK, Fate.OVER):
        code = Code.SPENT if fate is Fate.TAKEN else Code.BAD_CONFIG
        raise Refused(code, f"{reference!r} is {_WORDS[fate]}. Give another deposit another reference.")
    if fate is Fate.BEGUN and not side.purse.is_asked(side.fates.invoice(made)):
        side.deposits.forget(reference)
    return side.deposits.made(reference)


def _locked(side: Side, made: Made) -> bytes:
    """The deposit's tokens."""
    try:
        return side.purse.pay(side.fates.invoice(made), until_s=made.until_s)
    except FallowError:
        _begun(side, made.reference)
        raise


def _handed(side: Side, reference: str, place: str, means: bytes) -> Deposit:
    side.deposits.note_handed(reference, place)
    made = side.deposits.made(reference)
    assert made is not None, "it was begun"
    return Deposit(made, Fate.LOCKED, means)


def back(
    reference: Annotated[str, Parameter(help="As the deposit was made; `fallow deposit list` shows it.")],
    /,
    *,
    state: Whose = None,
    json: AsJson = False,
) -> None:
    """A deposit whose time is over, and that its payee has not taken, is in the purse again, less the mint's fee."""
    with side_of(state) as side:
        made = side.deposits.made(reference)
        means = side.purse.means_of(side.fates.invoice(made)) if made else None
        if made is None or means is None:
            known = ", ".join(repr(each.reference) for each in side.deposits.all_made()) or "none"
            raise ConfigError(Code.BAD_CONFIG, f"No deposit {reference[:80]!r} was made here; there are {known}.")
        now_s = wall_ms() // 1000
        # The mint would say of one that was taken early that it is locked until its time is over.
        if side.fates.look_at(made, now_s).fate is Fate.TAKEN:
            raise Refused(Code.SPENT, f"The payee of {reference!r} has taken it.")
        try:
            ucr = side.purse.take_back(means, now_s)
        except Refused as refused:
            if refused.code is Code.SPENT:  # a moment ago
                side.fates.note_taken(made, means)
            raise
        side.deposits.note_back(reference)
    if json:
        print_json({"reference": reference, "ucr": ucr})
    else:
        line(f"{ucr} ucr of {reference!r} are in the purse again.")


def list_(*, state: Whose = None, json: AsJson = False) -> None:
    """Those that you made, for whom, until when, and what became of them; those of others that a node holds; and those that you
    rely on.

    What a node has taken is a payment: it is in your ledger, too (`fallow balance`).
    """
    with side_of(state) as side, progress("asking the mint"):
        made = side.fates.look(wall_ms() // 1000)
        held = side.deposits.held()
        relied = relied_on(side) if state is None else []
    if json:
        holding: Json = [
            {"payer": h.payer.hex(), "reference": h.reference, "ucr": h.ucr, "until_s": h.until_s} for h in held
        ]
        print_json(
            {
                "made": [_as_json(each) for each in made],
                "held": holding,
                "relied_on": [{"owner": r.owner.hex(), "file": r.file, "ucr": r.ucr, "state": r.state} for r in relied],
            }
        )
        return
    rows = [
        (d.made.reference, "to " + short(d.made.payee), str(d.ucr), in_utc(d.made.until_s), _words(d)) for d in made
    ]
    rows += [(h.reference, "by " + short(h.payer), str(h.ucr), in_utc(h.until_s), "held here") for h in held]
    rows += [(Path(r.file).name, "by owner " + short(r.owner), str(r.ucr), "", r.state) for r in relied]
    if rows:
        table(("reference", "whose", "ucr ", "until", "state"), rows)
    else:
        remark("No deposit was made here, and none is held.")


def _words(deposit: Deposit) -> str:
    """For people: where it stands, and what to do."""
    if deposit.fate is Fate.LOCKED and not deposit.made.handed:
        return "locked, and not handed over: repeat `fallow deposit make`"
    if deposit.fate is Fate.UNKNOWN and deposit.means is None:
        return "not known: no mint is set"
    return _WORDS[deposit.fate]


def _as_json(deposit: Deposit) -> dict[str, Json]:
    made = deposit.made
    return {
        "reference": made.reference,
        "payee": made.payee.hex(),
        "place": made.place,
        "ucr": deposit.ucr,
        "until_s": made.until_s,
        "state": _words(deposit),
    }
