"""What people type about money, with real nodes and a real mint: ecash, deposits both ways, payments for others, balances."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fallow.client import Mesh
from fallow.node.earnings import earnings
from fallow.node.keys import load_or_create
from fallow.node.paid import payments
from fallow.node.rails.ledger import Ledger
from fallow.protocol.identity import peer_key_untrusted
from fallow.testnet.record import LocalNode

from ..payment.test_rails import Gate, gate, mint
from ..payment.user import User
from .test_policies import NEVER, ODD, ask, nodes

__all__ = ["gate", "mint"]

UNIT_UCR = 1_000
SHARED = ("store", "trust.toml", "rails.toml")
"""Of a home: bundles are no secret, and lists and settings are their user's own files."""
TESTNETS = ("node.toml", "stderr.log", "clock")
"""What a test network lays into a node's directory, beside what the node writes."""


def key_of(node: LocalNode) -> bytes:
    return peer_key_untrusted(node.peer_id)


@pytest.mark.timeout(900)  # two nodes, each with its worker
@pytest.mark.spec("P-31", "P-32", "P-33", "P-34")
async def test_ecash_deposits_payments_and_balances(
    tmp_path: Path, new_home: Callable[[], Path], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(new_home())
    monkeypatch.setenv("FALLOW_HOME", str(user.home))
    settings = {"rails": {"cashu": {"mint": gate.address, "ucr_per_unit": UNIT_UCR}}}
    assert "says nothing of cashu" in await user("purse", "show", code=1)
    (user.home / "rails.toml").write_text(f'[cashu]\nmint = "{gate.address}"\nucr_per_unit = {UNIT_UCR}\n')
    async with nodes(tmp_path / "net", user.home, settings, settings, within_s=880) as ((one, other), mesh):
        await the_purse_is_filled(user)
        await a_deposit_for_a_node(user, one, gate)
        await what_vouchers_have_made_due_is_paid(user, mesh, one)
        await a_deposit_for_a_client(user, one, tmp_path)
        await a_payment_for_somebody_else(user, one, other)
        nobody_else_may_read_it(user, one)


async def the_purse_is_filled(user: User) -> None:
    assert (await user("purse", "show"))["units"] == 0
    assert "[credit_exhausted]" in await user(
        "deposit", "make", "02" + "ab" * 32, "5", "--reference", "x", "--out", "x", code=1
    )
    await user.fill(200)
    assert (await user("purse", "show"))["ucr"] == 200 * UNIT_UCR
    for words in (("purse", "fill", "-1"), ("purse", "fill", str(10**12))):
        assert "[bad_config]" in await user(*words, code=1)


async def a_deposit_for_a_node(user: User, node: LocalNode, gate: Gate) -> None:
    make = ("deposit", "make", node.addresses[0], "20000", "--reference", "spring")
    gate.lost = {"/v1/checkstate": 0}  # the node cannot see what it is given
    said = await user(*make, "--for", "20d", code=1)
    assert "did not take the deposit" in said and "locked all the same" in said
    gate.lost.clear()
    (begun,) = (await user("deposit", "list"))["made"]
    assert begun["state"] == "locked, and not handed over: repeat `fallow deposit make`"
    made = await user(*make, "--for", "20d")
    assert made == {**begun, "state": "locked"}
    assert await user(*make, "--for", "30d") == made  # it is locked once, with the time that it got first
    assert "another reference" in await user("deposit", "make", node.addresses[0], "1", "--reference", "spring", code=1)
    (listed,) = (await user("deposit", "list"))["made"]
    assert listed == {**made, "state": "locked"}
    (held,) = (await user("deposit", "list", "--state", node.state))["held"]
    assert (held["payer"], held["ucr"], held["until_s"]) == (user.key.hex(), 20_000, made["until_s"])
    assert "[locked]" in await user("deposit", "back", "spring", code=1)
    assert "'spring'" in await user("deposit", "back", "summer", code=1)
    for wrong in (
        ("/ip4/127.0.0.1/tcp/1", "5"), ("nobody", "5", "--out", "x"), (node.addresses[0], "0"),
        (node.addresses[0], "5", "--for", "1d"), (node.addresses[0], "5", "--out", "x"), ("02" + "ab" * 32, "5"),
    ):  # fmt: skip
        assert "[bad_config]" in await user("deposit", "make", *wrong, "--reference", "wrong", code=1)
    assert len((await user("deposit", "list"))["made"]) == 1
    assert await user.owed(key_of(node)) == 0  # it is no payment


async def what_vouchers_have_made_due_is_paid(user: User, mesh: Mesh, node: LocalNode) -> None:
    await ask(mesh, ODD, [node], NEVER, 20)
    due, state = sum(row.paid_ucr - row.held_ucr for row in earnings(Path(node.state))), node.state
    assert await user.owed(key_of(node)) == due > 0
    (party,) = (await user("balance", "--state", state))["parties"]
    assert party == {"party": user.key.hex(), "ours_ucr": due, "theirs_ucr": 0, "balance_ucr": due}
    pay = ("pay", node.addresses[0], "64000", "--rail", "cashu", "--reference", "november")
    for _ in range(2):
        assert (await user(*pay))["ucr"] == 64_000
    assert await user.owed(key_of(node)) == due - 64_000
    entries = (await user("balance", user.key.hex(), "--state", state))["entries"]
    assert sorted(each["ours_ucr"] for each in entries) == [-64_000, due]
    totals = (await user("statement", "--year", "2026", "--state", state))["totals"]
    assert totals["due_ucr"] - totals["settled_ucr"] == due - 64_000
    for wrong in (("nonsense", "5"), (node.addresses[0], "-5"), (node.addresses[0], str(2**60))):
        assert "[bad_config]" in await user("pay", *wrong, "--reference", "wrong", code=1)
    assert "[credit_exhausted]" in await user("pay", node.addresses[0], "5", "--reference", "r", code=1)
    # With another price than the node's, nothing is locked that it would not take.
    rails = user.home / "rails.toml"
    good = rails.read_text()
    rails.write_text(good.replace(str(UNIT_UCR), "500"))
    units = (await user("purse", "show"))["units"]
    assert "[bad_terms]" in await user("pay", *pay[1:-1], "december", code=1)
    assert (await user("purse", "show"))["units"] == units
    rails.write_text(good)


async def a_deposit_for_a_client(user: User, node: LocalNode, folder: Path) -> None:
    """The owner's, out of what the node has been paid."""
    key, bond = (await user("purse", "show"))["key"], folder / "bond.means"
    make = ("deposit", "make", key, "8000", "--reference", "bond", "--out", bond, "--state", node.state)
    made = await user(*make)
    assert (await user(*make))["until_s"] == made["until_s"]
    rely = ("deposit", "rely", bond, "--owner", node.owner, "--least", "8000")
    for _ in range(2):
        assert (await user(*rely))["until_s"] == made["until_s"]
    (relied,) = (await user("deposit", "list"))["relied_on"]
    assert (relied["owner"], relied["ucr"]) == (node.owner, 8000)
    assert relied["state"].startswith("counts, locked until")
    (folder / "nonsense").write_bytes(b"nonsense")
    assert "error" in await user("deposit", "rely", folder / "nonsense", "--owner", node.owner, code=1)
    assert "[bad_config]" in await user("deposit", "rely", folder / "nowhere", "--owner", node.owner, code=1)


async def a_payment_for_somebody_else(user: User, one: LocalNode, other: LocalNode) -> None:
    """The one node's debt at the other is settled by the user, by ecash and by a set-off; and by the node's own purse."""
    debtor = key_of(one)
    pay = ("pay", other.addresses[0], "2000", "--debtor", debtor.hex())
    assert (await user(*pay, "--rail", "cashu", "--reference", "ecash"))["ucr"] == 2_000
    assert await user.owed(key_of(other)) == 0  # it was not this user's debt
    state = Path(other.state)
    with closing(Ledger(state / "rails" / "ledger.sqlite", load_or_create(state / "node.key"))) as books:
        books.post(user.key, "a decision", theirs_ucr=700)
    with closing(Ledger(user.home / "rails" / "ledger.sqlite", load_or_create(user.home / "keys" / "client"))) as mine:
        mine.post(key_of(other), "a decision", ours_ucr=700)
    set_off = ("pay", other.addresses[0], "700", "--debtor", debtor.hex(), "--reference", "set-off")
    for _ in range(2):
        assert (await user(*set_off))["rail"] == "ledger"
    own = ("pay", other.addresses[0], "3000", "--rail", "cashu", "--reference", "own", "--state", one.state)
    assert (await user(*own))["ucr"] == 3_000
    said = sorted((paid.payer, paid.rail, paid.ucr) for paid in payments(state))
    assert said == [(debtor, "cashu", 2_000), (debtor, "cashu", 3_000), (debtor, "ledger", 700)]
    parties = {each["party"]: each for each in (await user("balance", "--state", state))["parties"]}
    assert parties[debtor.hex()]["ours_ucr"] == -5_700
    assert (parties[user.key.hex()]["ours_ucr"], parties[user.key.hex()]["theirs_ucr"]) == (0, 0)
    (mine_at_other,) = [each for each in (await user("balance"))["parties"] if each["party"] == key_of(other).hex()]
    assert (mine_at_other["ours_ucr"], mine_at_other["theirs_ucr"]) == (0, 0)
    assert "[bad_config]" in await user(*pay[:3], "--debtor", "ab", "--reference", "r", code=1)


def nobody_else_may_read_it(user: User, node: LocalNode) -> None:
    """Neither what the client wrote, nor the node."""
    for place, but in ((user.home, SHARED), (Path(node.state), TESTNETS)):
        found = {
            str(path.relative_to(place)): oct(path.stat().st_mode & 0o777)
            for path in place.rglob("*")
            if path.is_file() and path.relative_to(place).parts[0] not in but and path.stat().st_mode & 0o077
        }
        assert found == {}
