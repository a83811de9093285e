"""Paying a node over a real network: the means are handed over, taken once, and counted in the node's journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trio

from fallow.client.paying import pay
from fallow.node.keys import load_or_create
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.paid import payments
from fallow.node.rails.bank import end_to_end
from fallow.node.rails.ledger import Ledger
from fallow.node.rails.opening import open_rails, rail_settings
from fallow.protocol.errors import Code, ConfigError, Refused
from fallow.protocol.identity import peer_key_untrusted

from .test_policies import nodes

IBAN, BIC = "DE89370400440532013000", "COBADEFFXXX"
PAYEE_BANK = {"name": "Payee", "iban": IBAN, "bic": BIC, "ucr_per_cent": 100}
PAYER_BANK = {"name": "Payer", "iban": "FR1420041010050500013M02606", "bic": "BNPAFRPPXXX", "ucr_per_cent": 100}
STATEMENT = """<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt><Ntry>
<CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><NtryDtls><TxDtls><Refs><EndToEndId>{id}</EndToEndId></Refs>
<Amt Ccy="EUR">{euros}</Amt></TxDtls></NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>"""


@pytest.mark.timeout(600)  # a node with its worker, and the command several times
@pytest.mark.spec("P-26", "P-31", "P-32")
async def test_what_a_payer_hands_over_counts_at_the_node_once(tmp_path: Path, new_home: Callable[[], Path]) -> None:
    home, statements = new_home(), tmp_path / "statements"
    statements.mkdir()
    rails = {"bank": {**PAYEE_BANK, "statements": str(statements)}}
    async with nodes(tmp_path / "net", home, {"rails": rails}, within_s=580) as ((node,), _):
        key, state = load_or_create(home / "keys" / "client"), Path(node.state)
        payer, payee = bytes(key.verify_key), peer_key_untrusted(node.peer_id)
        # The two owe each other something: what the payer is owed is set off against what it owes.
        with closing(Ledger(state / "rails" / "ledger.sqlite", load_or_create(state / "node.key"))) as books:
            books.post(payer, "their jobs at mine", theirs_ucr=800)
        with ExitStack() as stack:
            mine = open_rails(rail_settings({"bank": {**PAYER_BANK, "statements": "-"}}), home / "rails", key, stack)
            ledger, bank = mine["ledger"], mine["bank"]
            assert isinstance(ledger, Ledger)
            ledger.post(payee, "my jobs at theirs", ours_ucr=900)
            words = [
                sys.executable,
                "-P",
                "-m",
                "fallow.cli",
                "pay",
                node.addresses[0],
                "500",
                "--reference",
                "one",
                "--json",
            ]
            env = {**os.environ, "FALLOW_HOME": str(home)}
            for _ in range(2):
                done = await trio.run_process(words, env=env, capture_stdout=True)
                assert b'"ucr": 500' in done.stdout
            assert [(paid.payer, paid.rail, paid.ucr) for paid in payments(state)] == [(payer, "ledger", 500)]
            assert ledger.owed_ucr(payee) == (400, -500)

            async with open_network(
                b"\x09" * 32, [], [node.addresses[0]], profile_rules(wall_ms), mode="client"
            ) as network:
                at = (network, payee, node.addresses)
                with pytest.raises(Refused) as caught:  # the node does not owe so much
                    await pay(*at, ledger, payer, 400, "two")
                assert caught.value.code is Code.BAD_RECORD
                with pytest.raises(Refused) as caught:  # nor tells strangers whose account it is
                    await pay(*at, bank, payer, 1_000, "three")
                assert caught.value.code is Code.BAD_TERMS
                where = f"{IBAN} {BIC} Payee"
                with pytest.raises(Refused) as caught:  # its bank has nothing of it
                    await pay(*at, bank, payer, 1_000, "three", address=where)
                assert caught.value.code is Code.UNPAID
                statement = STATEMENT.format(id=end_to_end(payer, payee, "three"), euros="0.10")
                (statements / "today.xml").write_text(statement)
                for _ in range(2):
                    assert (await pay(*at, bank, payer, 1_000, "three", address=where)).ucr == 1_000
        assert sorted((paid.rail, paid.ucr) for paid in payments(state)) == [("bank", 1_000), ("ledger", 500)]
        refused = await trio.run_process([*words[:-1], "--rail", "cashu"], env=env, capture_stderr=True, check=False)
        assert refused.returncode == 1
        assert b"says nothing of cashu" in refused.stderr


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (3, "rails"), ({"gold": {}}, "gold"), ({"cashu": 1}, "cashu"), ({"cashu": {"mint": "m", "ucr_per_unit": 1}}, "mint"),
        ({"cashu": {"mint": "https://m", "ucr_per_unit": 0}}, "ucr_per_unit"),
        ({"cashu": {"mint": "https://m", "ucr_per_unit": 1, "x": 1}}, "x"), ({"bank": {"name": "n"}}, "iban"),
    ],
)  # fmt: skip
def test_rails_that_are_none(table: object, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        rail_settings(table)
