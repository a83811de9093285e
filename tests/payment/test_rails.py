"""Every rail does the same by the same tests: pays an invoice once, takes what was paid once, and loses nothing on the way."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from xml.etree import ElementTree

import pytest
from coincurve import PrivateKey
from nacl.signing import SigningKey

from fallow.client.deposits import Deposits
from fallow.node.journal import Journal
from fallow.node.rails import cashu, cashu_file, cashu_means, cashu_outbox
from fallow.node.rails.bank import Account, Bank
from fallow.node.rails.cashu import Cashu
from fallow.node.rails.cashu_crypto import check_dleq, lock_of, locked
from fallow.node.rails.ledger import Ledger
from fallow.node.rails.rail import Invoice, Rail, invoice_id, read_means
from fallow.node.trust import Deposit, TrustList
from fallow.protocol.codec import encode
from fallow.protocol.errors import Code, ConfigError, FallowError, NetworkError, Refused, RemoteProtocolError
from fallow.protocol.limits import HOLD_MS_MAX
from fallow.protocol.means import Means
from fallow.protocol.schema import to_map

PAYER = bytes([7]) * 32
KEYS = {"payer": bytes([1]) * 32, "payee": bytes([8]) * 32, "other": bytes([9]) * 32}
PAYEE = KEYS["payee"]
UNIT_UCR = 1_000
TODAY = datetime.date(2026, 11, 28)
MINT = Path(os.environ.get("FALLOW_MINT") or Path(__file__).parents[2] / "build/cashu/bin/mint")
MINT_S = 60


@dataclass
class Pair:
    """Payer, payee and somebody else on one rail; `open` opens the payer's or payee's state anew, as after a crash."""

    open: Callable[[str], Any]
    fund: Callable[[Any, Any, int], None]
    arrive: Callable[[Any, Any, bytes], None]
    """Whatever has to happen between paying and taking."""
    opened: dict[str, Any]

    def __getitem__(self, who: str) -> Any:
        if who not in self.opened:
            self.opened[who] = self.open(who)
        return self.opened[who]

    def restart(self, who: str) -> Any:
        self.opened.pop(who).close()
        return self[who]


def missing(why: str) -> NoReturn:
    """Not tried, or, where nothing may be left out, failed."""
    (pytest.fail if os.environ.get("FALLOW_NEED_ALL") else pytest.skip)(why)


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real nutshell mint with its fake wallet, in its own environment."""
    if not MINT.exists():
        missing(f"no Cashu mint: `tools/cashu.sh {MINT.parents[1]}` installs one, in an environment of its own")
    folder = tmp_path_factory.mktemp("mint")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "MINT_BACKEND_BOLT11_SAT": "FakeWallet", "MINT_LISTEN_HOST": "127.0.0.1", "MINT_LISTEN_PORT": str(port),
        "MINT_PRIVATE_KEY": "for this test alone", "MINT_DATABASE": str(folder), "FAKEWALLET_BRR": "TRUE",
        "CASHU_DIR": str(folder), "TOR": "FALSE", "MINT_RATE_LIMIT": "FALSE", "HOME": str(folder),
    }  # fmt: skip
    process = subprocess.Popen(
        [str(MINT)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + MINT_S
    try:
        while not _answers(address):
            assert process.poll() is None, "the mint has ended"
            assert time.monotonic() < deadline, "the mint does not answer"
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/v1/keys", timeout=5):
            return True
    except OSError:
        return False


def ledgers(folder: Path) -> Pair:
    keys = {who: SigningKey(bytes([number]) * 32) for number, who in enumerate(("payer", "payee", "other"), 1)}

    def fund(payer: Ledger, payee: Ledger, ucr: int) -> None:
        """The payee owes the payer, for what the payer's own node has done for it."""
        payer.post(bytes.fromhex(payee.address), f"work {ucr}", ours_ucr=ucr)
        payee.post(bytes.fromhex(payer.address), f"work {ucr}", theirs_ucr=ucr)

    return Pair(lambda who: Ledger(folder / f"{who}.sqlite", keys[who]), fund, lambda payer, payee, means: None, {})


ACCOUNTS = {
    "payer": Account("Payer", "DE89370400440532013000", "COBADEFFXXX"),
    "payee": Account("Owner of a car", "FR1420041010050500013M02606", "PSSTFRPPXXX"),
    "other": Account("Somebody else", "NL91ABNA0417164300", "ABNANL2A"),
}


def banks(folder: Path) -> Pair:
    if find_spec("sepaxml") is None:
        missing("sepaxml is not installed: it comes with the extra `rails`")

    def open_bank(who: str) -> Bank:
        return Bank(folder / f"{who}.sqlite", KEYS[who], ACCOUNTS[who], folder / f"{who}-files", UNIT_UCR, TODAY)

    def arrive(payer: Bank, payee: Bank, means: bytes) -> None:
        """Stands in for two banks: what the payer's file orders stands on the payee's statement."""
        for path in (folder / "payer-files").glob("*.xml"):
            payee.read_statement(statement_of(path.read_bytes()))

    return Pair(open_bank, lambda payer, payee, ucr: None, arrive, {})


def statement_of(order: bytes, *, status: str = "BOOK", direction: str = "CRDT") -> bytes:
    root = ElementTree.fromstring(order)
    space = root.tag.partition("}")[0] + "}"
    id, amount = root.findtext(f".//{space}EndToEndId"), root.findtext(f".//{space}InstdAmt")
    return f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt><Ntry>
        <Amt Ccy="EUR">{amount}</Amt><CdtDbtInd>{direction}</CdtDbtInd><Sts><Cd>{status}</Cd></Sts><NtryDtls><TxDtls>
        <Refs><EndToEndId>{id}</EndToEndId></Refs><Amt Ccy="EUR">{amount}</Amt></TxDtls></NtryDtls>
        </Ntry></Stmt></BkToCstmrStmt></Document>""".encode()


def purses(folder: Path, mint: str) -> Pair:
    keys = {"payer": b"\x01" * 32, "payee": b"\x02" * 32, "other": b"\x03" * 32}

    def fund(payer: Cashu, payee: Cashu, ucr: int) -> None:
        amount = -(-ucr // UNIT_UCR) + 2  # for the mint's fees
        payer.quotes.fill(amount, payer.quotes.ask(amount))

    def open_purse(who: str) -> Cashu:
        return Cashu(folder / f"{who}.sqlite", mint, keys[who], UNIT_UCR)

    return Pair(open_purse, fund, lambda payer, payee, means: None, {})


@pytest.fixture(params=["ledger", "cashu", "bank"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    match request.param:
        case "ledger":
            pair = ledgers(tmp_path)
        case "bank":
            pair = banks(tmp_path)
        case _:
            pair = purses(tmp_path, request.getfixturevalue("mint"))
    yield pair
    for rail in pair.opened.values():
        rail.close()


def invoice(payee: Rail, units: int, reference: str = "November") -> Invoice:
    return Invoice(PAYER, PAYEE, payee.address, units * UNIT_UCR, reference)


def test_what_is_paid_is_taken_to_the_micro_credit_and_counts_once(pair: Pair, tmp_path: Path) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 21 * UNIT_UCR)
    means = payer.pay(invoice(payee, 13))
    pair.arrive(payer, payee, means)
    taken = payee.take(means)
    assert (taken.payer, taken.ucr, taken.reference) == (PAYER, 13 * UNIT_UCR, "November")
    assert payee.take(means) == taken
    journal = Journal(tmp_path)
    assert journal.add_payment(taken.payment(payee.name, 0))
    assert not journal.add_payment(payee.take(means).payment(payee.name, 1))
    assert journal.settled_ucr(PAYER) == 13 * UNIT_UCR
    journal.close()


def test_the_same_invoice_is_paid_once_whatever_happens_in_between(pair: Pair) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 13 * UNIT_UCR)
    means = payer.pay(invoice(payee, 13))
    assert payer.pay(invoice(payee, 13)) == means
    payer = pair.restart("payer")
    assert payer.pay(invoice(payee, 13)) == means
    pair.arrive(payer, payee, means)
    taken = payee.take(means)
    assert pair.restart("payee").take(means) == taken


def test_one_reference_pays_each_node_for_itself(pair: Pair) -> None:
    payer, payee, other = pair["payer"], pair["payee"], pair["other"]
    both = [(payee, invoice(payee, 4)), (other, replace(invoice(other, 5), payee=KEYS["other"]))]
    for node, due in both:
        pair.fund(payer, node, due.ucr)
    paid = [payer.pay(due) for _, due in both]
    assert [payer.pay(due) for _, due in both] == paid
    for (node, due), means in zip(both, paid, strict=True):
        pair.arrive(payer, node, means)
        assert node.take(means).ucr == due.ucr


def test_another_amount_under_the_same_reference_is_refused_and_nothing_is_paid(pair: Pair) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 20 * UNIT_UCR)
    means = payer.pay(invoice(payee, 4))
    for _ in range(2):
        with pytest.raises(Refused, match="another reference") as caught:
            pair["payer"].pay(invoice(payee, 5))
        assert caught.value.code is Code.BAD_CONFIG
        pair.restart("payer")
    assert pair["payer"].pay(invoice(payee, 4)) == means


def test_two_invoices_are_two_payments(pair: Pair) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 9 * UNIT_UCR)
    both = [payer.pay(invoice(payee, units, reference)) for units, reference in ((4, "one"), (5, "two"))]
    for means in both:
        pair.arrive(payer, payee, means)
    taken = [payee.take(means) for means in both]
    assert taken[0].id != taken[1].id
    assert [each.ucr for each in taken] == [4 * UNIT_UCR, 5 * UNIT_UCR]


def test_means_for_somebody_else_bring_nothing(pair: Pair) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 13 * UNIT_UCR)
    means = payer.pay(invoice(payee, 13))
    pair.arrive(payer, payee, means)
    with pytest.raises(RemoteProtocolError):
        pair["other"].take(means)
    assert payee.take(means).ucr == 13 * UNIT_UCR


def test_means_that_say_more_than_was_paid_bring_no_more(pair: Pair) -> None:
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 13 * UNIT_UCR)
    means = payer.pay(invoice(payee, 13))
    pair.arrive(payer, payee, means)
    found = read_means(means, payee.name)
    for changed in (
        replace(found, ucr=14 * UNIT_UCR),
        replace(found, body=found.body + b" "),
        replace(found, rail="other"),
    ):
        try:
            taken = payee.take(encode(to_map(changed)))
        except RemoteProtocolError:
            continue
        assert taken.ucr == 13 * UNIT_UCR
    for broken in (b"", means[:-1], means + b"\x00", b"\xff" * 40):
        with pytest.raises(RemoteProtocolError):
            payee.take(broken)
    assert payee.take(means).ucr == 13 * UNIT_UCR


def test_who_has_not_enough_pays_nothing(tmp_path: Path) -> None:
    pair = ledgers(tmp_path)
    pair.fund(pair["payer"], pair["payee"], 5 * UNIT_UCR)
    with pytest.raises(Refused) as caught:
        pair["payer"].pay(invoice(pair["payee"], 6))
    assert caught.value.code is Code.CREDIT_EXHAUSTED
    assert pair["payer"].pay(invoice(pair["payee"], 5))
    for rail in pair.opened.values():
        rail.close()


def test_a_set_off_makes_both_debts_smaller_and_nobody_richer(tmp_path: Path) -> None:
    pair = ledgers(tmp_path)
    alice, bob = pair["payer"], pair["payee"]
    a, b = bytes.fromhex(alice.address), bytes.fromhex(bob.address)
    alice.post(b, "their work", theirs_ucr=100)
    bob.post(a, "their work", ours_ucr=100)
    pair.fund(alice, bob, 60)
    before = (alice.balance_ucr(b), bob.balance_ucr(a))
    assert before == (-40, 40)
    bob.take(alice.pay(Invoice(a, PAYEE, bob.address, 60, "net")))
    assert (alice.owed_ucr(b), bob.owed_ucr(a)) == ((0, 40), (40, 0))
    assert (alice.balance_ucr(b), bob.balance_ucr(a)) == before
    for rail in pair.opened.values():
        rail.close()


def test_a_set_off_for_somebody_elses_debt_leaves_the_waivers_own_as_it_was(tmp_path: Path) -> None:
    """Alice waives what Bob owes her, and what Carol owes Bob is smaller by that."""
    pair = ledgers(tmp_path)
    alice, bob, carol = pair["payer"], pair["payee"], pair["other"]
    a, b, c = (bytes.fromhex(each.address) for each in (alice, bob, carol))
    pair.fund(alice, bob, 60)
    for creditor, debtor, who in ((bob, alice, a), (bob, carol, c)):
        creditor.post(who, "work", ours_ucr=100)
        debtor.post(b, "work", theirs_ucr=100)
    means = alice.pay(Invoice(c, PAYEE, bob.address, 50, "for Carol"))
    for _ in range(2):
        assert bob.take(means).payer == c
    assert (alice.owed_ucr(b), bob.owed_ucr(a)) == ((10, 100), (100, 10))
    assert bob.owed_ucr(c) == (50, 0)
    with pytest.raises(RemoteProtocolError, match="more than we owe"):  # Bob owes Alice no more than 10
        bob.take(carol_pays_with(alice, b, c, 11))
    for rail in pair.opened.values():
        rail.close()


def carol_pays_with(waiver: Ledger, payee: bytes, payer: bytes, ucr: int) -> bytes:
    """A set-off whose waiver says that it is owed more than it is."""
    waiver.post(payee, "made up", ours_ucr=ucr)
    return waiver.pay(Invoice(payer, PAYEE, payee.hex(), ucr, "more"))


def test_a_deposit_is_the_payees_to_take_until_its_time_and_a_payment_for_ever(tmp_path: Path, mint: str) -> None:
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 21 * UNIT_UCR)
    until_s = int(time.time()) + 3600
    deposit = payer.pay(invoice(payee, 8, "deposit"), until_s=until_s)
    assert payee.locked_until_s(deposit) == until_s
    assert payee.locked_until_s(payer.pay(invoice(payee, 3, "payment"))) == 0
    assert payee.take(deposit).ucr == 8 * UNIT_UCR
    assert payee.balance == 7  # the mint keeps one of each swap
    with pytest.raises(RemoteProtocolError, match="spent"):
        payee.locked_until_s(deposit)
    assert payer.balance == 10
    for rail in pair.opened.values():
        rail.close()


def test_a_deposit_is_locked_until_its_first_token_is_free(tmp_path: Path, mint: str) -> None:
    """One token without a time, among others that go back in an hour."""
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 21 * UNIT_UCR)
    until_s = int(time.time()) + 3600
    parts = [
        read_means(payer.pay(invoice(payee, units, name), until_s=time_s), "cashu")
        for units, name, time_s in ((8, "an hour", until_s), (1, "for ever", 0))
    ]
    bodies = [json.loads(part.body) for part in parts]
    body = json.dumps({**bodies[0], "proofs": [proof for each in bodies for proof in each["proofs"]]}).encode()
    assert payee.locked_until_s(replace(parts[0], ucr=9 * UNIT_UCR, body=body).encode()) == until_s
    for rail in pair.opened.values():
        rail.close()


@pytest.mark.parametrize(
    "tags",
    [
        [["pubkeys", "02" + "ab" * 32], ["n_sigs", "1"]],
        [["n_sigs", "2"]],
        [["locktime", "1"], ["locktime", "99999999999"]],
        [["sigflag", "SIG_INPUTS"]],
        [["locktime", "0"]],
        [["locktime", "-1"]],
        [["locktime", "99999999999", "1"]],
        [[]],
        ["pubkeys"],
        [["locktime", 99999999999]],
        [["locktime", "9" * 17]],
        [["refund", "a", 1]],
    ],
)
def test_a_secret_that_others_may_spend_is_not_locked(tags: list[Any]) -> None:
    kind, condition = json.loads(locked("02" + "cd" * 32))
    assert lock_of(json.dumps([kind, condition]))[0] == condition["data"]
    condition["tags"] += tags
    assert lock_of(json.dumps([kind, condition])) == ("", 0)


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        ("SIG_INPUTS", "SIG_ALL"), ("SIG_INPUTS", "SIG_NONE"), ('"data"', '"data":"02ab","data"'), ("P2PK", "HTLC"),
        ('"nonce":', '"nonce":NaN,"n":'), ('"nonce":', '"nonce":1,"n":'), ('"nonce":"', '"nonce":"\\ud800'),
        ('"nonce":"', '"nonce":"\u00e9'), ('"nonce":', '"n":'), ('["P2PK"', "[" * 100_000 + '["P2PK"'),
    ],
)  # fmt: skip
def test_a_secret_that_some_mint_could_read_otherwise_is_not_locked(told: str, instead: str) -> None:
    secret = locked("02" + "cd" * 32, 99)
    assert lock_of(secret) == ("02" + "cd" * 32, 99)
    assert told in secret
    assert lock_of(secret.replace(told, instead)) == ("", 0)


def test_a_crash_between_the_mints_answer_and_ours_loses_nothing(tmp_path: Path, mint: str) -> None:
    """The purse is as it was when the request went out: the mint has done it, and we do not know."""
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 13 * UNIT_UCR)

    def dies(id: str) -> None:
        raise SystemError("the machine is off")

    whole = payer._outbox.finish
    payer._outbox.finish = dies
    with pytest.raises(SystemError):
        payer.pay(invoice(payee, 5))
    path, body = payer._db.execute("SELECT path, body FROM asked").fetchone()
    payer._mint.ask(path, json.loads(body))
    payer._outbox.finish = whole
    payer = pair.restart("payer")
    with pytest.raises(Refused, match="another reference"):
        payer.pay(invoice(payee, 6))
    means = payer.pay(invoice(payee, 5))
    assert payee.take(means).ucr == 5 * UNIT_UCR
    assert (payer.balance, payee.balance) == (9, 4)
    for rail in pair.opened.values():
        rail.close()


@dataclass
class Gate:
    """What stands between a purse and its mint, as a proxy does: it passes everything on, and may lose the answer."""

    mint: str
    address: str = ""
    lost: dict[str, int] = field(default_factory=dict)
    """By path: what is answered in the mint's stead once it has done what it was asked; 0: nothing at all."""
    refused: set[str] = field(default_factory=set)
    """Paths at which something in between says no, and asks no mint."""
    rotated: bool = False
    """The mint's keyset is not among the active ones any more."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, length = handler.path, int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else None
        if path in self.refused:
            handler.send_response(403)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.mint + path, body, {"Content-Type": "application/json"}), timeout=20
            ) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        if self.rotated and path == "/v1/keys":
            content = b'{"keysets": []}'
        if not (status := self.lost.get(path, status)):
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def gate(mint: str) -> Iterator[Gate]:
    gate = Gate(mint)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gate.answer(self)

        def do_POST(self) -> None:
            gate.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is said of a request."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gate.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield gate
        server.shutdown()
        thread.join()


def altered(means: bytes, **changes: Any) -> bytes:
    found = read_means(means, "cashu")
    body = json.loads(found.body)
    body["proofs"] = [{**proof, **changes} for proof in body["proofs"]]
    return replace(found, body=json.dumps(body).encode()).encode()


@pytest.mark.parametrize("status", [0, 429, 502, 504])
def test_a_lost_answer_of_the_mint_loses_nothing_and_settles_no_more(tmp_path: Path, gate: Gate, status: int) -> None:
    """The mint has swapped, and the payee was not told. Then the same tokens come with other amounts."""
    pair = purses(tmp_path, gate.address)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 16 * UNIT_UCR)
    means = payer.pay(invoice(payee, 8))
    gate.lost["/v1/swap"] = status
    with pytest.raises(NetworkError):
        payee.take(means)
    gate.lost.clear()
    payee = pair.restart("payee")
    for changes in ({"amount": 8 << 20}, {"amount": 8 << 20, "id": "0" * 16}):
        more = replace(read_means(altered(means, **changes), "cashu"), ucr=(8 << 20) * UNIT_UCR).encode()
        with pytest.raises(RemoteProtocolError):
            payee.take(more)
    assert payee.take(means).ucr == 8 * UNIT_UCR
    assert payee.balance == 7  # the mint keeps one of each swap
    for rail in pair.opened.values():
        rail.close()


def test_a_swap_is_finished_after_the_mint_has_other_keys(tmp_path: Path, gate: Gate) -> None:
    pair = purses(tmp_path, gate.address)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 16 * UNIT_UCR)
    means = payer.pay(invoice(payee, 8))
    gate.lost["/v1/swap"] = 0
    with pytest.raises(NetworkError):
        payee.take(means)
    gate.lost.clear()
    payee, gate.rotated = pair.restart("payee"), True
    assert payee.take(means).ucr == 8 * UNIT_UCR
    for rail in pair.opened.values():
        rail.close()


def test_keys_that_the_mint_does_not_sign_with_any_more_are_asked_for_anew(tmp_path: Path, mint: str) -> None:
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 16 * UNIT_UCR)
    payer._mint._keyset = "0" * 16
    with pytest.raises(RemoteProtocolError):
        payer.pay(invoice(payee, 8))
    assert payee.take(payer.pay(invoice(payee, 8))).ucr == 8 * UNIT_UCR
    for rail in pair.opened.values():
        rail.close()


def test_what_the_mint_has_answered_is_not_kept(tmp_path: Path, mint: str) -> None:
    """Neither the request, nor the tokens that it spent."""
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    quote = payer.quotes.ask(16)
    for _ in range(2):
        payer.quotes.fill(16, quote)
    assert payer.balance == 16
    for reference in ("one", "two"):
        payee.take(payer.pay(invoice(payee, 3, reference)))
    for purse in (payer, payee):
        assert purse._db.execute("SELECT count(*) FROM asked").fetchone() == (0,)
        whole = purse._db.execute("SELECT sum(amount) FROM proofs").fetchone()[0]
        assert whole == purse.balance
    for rail in pair.opened.values():
        rail.close()


def test_tokens_that_no_mint_signed_fill_no_disk_while_the_mint_is_away(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cashu_outbox, "ASKED_MAX", 3)
    pair = purses(tmp_path, gate.address)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 16 * UNIT_UCR)
    means = payer.pay(invoice(payee, 8))

    def waiting() -> int:
        return int(payee._db.execute("SELECT count(*) FROM asked").fetchone()[0])

    gate.lost = {"/v1/swap": 0}
    for number in range(6):
        with pytest.raises(NetworkError):
            payee.take(altered(means, secret=locked(payee.address)) if number else means)
        assert waiting() == min(number + 1, 3)
    assert payee.balance == 7  # the real one was the first to make room: the mint says again what it had answered
    gate.lost.clear()
    for _ in range(3):
        with pytest.raises(RemoteProtocolError):
            payee.take(altered(means, secret=locked(payee.address)))
    assert waiting() == 2
    assert payee.take(means).ucr == 8 * UNIT_UCR
    for rail in pair.opened.values():
        rail.close()


class Answering(BaseHTTPRequestHandler):
    """A mint that answers as it likes."""

    answers: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        content = self.answers.get(self.path, b"{}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of a request."""


@contextmanager
def answering(answers: dict[str, bytes]) -> Iterator[str]:
    handler = type("Handler", (Answering,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


KEYSET = "00" * 8
KEYS_TOLD = json.dumps({"keysets": [{"id": KEYSET, "keys": {"1": "02" + "11" * 32}}]}).encode()
ACTIVE = {"id": KEYSET, "unit": "sat", "active": True}


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/v1/keys": b"[]"},
        {"/v1/keys": b"[" * 100_000},
        {"/v1/keys": b'{"keysets": [5]}'},
        {"/v1/keys": b'{"keysets": [{"id": [], "keys": {}}]}'},
        {"/v1/keys": b'{"keysets": [{"id": "00", "keys": {"one": "02"}}]}'},
        {"/v1/keys": KEYS_TOLD, "/v1/keysets": b'{"keysets": [{}]}'},
        {
            "/v1/keys": KEYS_TOLD,
            "/v1/keysets": json.dumps({"keysets": [{**ACTIVE, "input_fee_ppk": float("inf")}]}).encode(),
        },
        {
            "/v1/keys": KEYS_TOLD,
            "/v1/keysets": json.dumps({"keysets": [ACTIVE]}).encode(),
            "/v1/restore": b'{"signatures": [5]}',
        },
        {
            "/v1/keys": KEYS_TOLD,
            "/v1/keysets": json.dumps({"keysets": [ACTIVE]}).encode(),
            "/v1/restore": b'{"signatures": [{"C_": 5}]}',
        },
    ],
)
def test_a_mint_that_answers_with_something_else_has_not_answered(tmp_path: Path, answers: dict[str, bytes]) -> None:
    with answering(answers) as mint, closing(Cashu(tmp_path / "purse.sqlite", mint, PAYEE, UNIT_UCR)) as purse:
        body = {"mint": mint, "proofs": [{"amount": 1, "id": KEYSET, "secret": locked(purse.address), "C": "02" * 33}]}
        means = Means("cashu", PAYER, "November", UNIT_UCR, json.dumps(body).encode()).encode()
        for told in (
            partial(purse.quotes.ask, 1),
            partial(purse.quotes.fill, 1, "a quote"),
            partial(purse.take, means),
        ):
            with pytest.raises((NetworkError, RemoteProtocolError)) as caught:
                told()
            assert caught.value.code is not Code.BAD_ENCODING
        with pytest.raises((NetworkError, RemoteProtocolError)):
            purse.locked_until_s(means)


FIRST_FORM = """
CREATE TABLE requests (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL, outputs TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE paid (reference TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
"""


def test_a_purse_of_the_first_form_pays_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    path, mint = tmp_path / "purse.sqlite", "http://127.0.0.1:1"
    address = PrivateKey(PAYEE).public_key.format().hex()
    body = {"mint": mint, "proofs": [{"amount": 2, "id": KEYSET, "secret": locked(address), "C": "02" * 33}]}
    paid = Means("cashu", PAYER, "paid", 2 * UNIT_UCR, json.dumps(body).encode()).encode()
    inputs = [{"amount": 4, "id": KEYSET, "secret": "spent", "C": "02" * 33}]
    outputs = [[2, KEYSET, locked(address), "01" * 32, False], [1, KEYSET, "change", "01" * 32, True]]
    asked = [{"amount": amount, "id": KEYSET, "B_": f"point {amount}"} for amount, *_ in outputs]
    swap = json.dumps({"inputs": inputs, "outputs": asked})
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(cashu_file._SCHEMA.split("CREATE TABLE IF NOT EXISTS asked")[0] + FIRST_FORM)
        db.execute("INSERT INTO proofs VALUES ('spent', 4, ?, 'C', 'pay begun')", (KEYSET,))
        db.execute("INSERT INTO paid VALUES ('paid', ?)", (paid,))
        for id, done in (("pay paid", 1), ("pay begun", 0), ("pay half", 1), ("ab" * 32, 1), ("cd" * 32, 0)):
            db.execute("INSERT INTO requests VALUES (?, '/v1/swap', ?, ?, ?)", (id, swap, json.dumps(outputs), done))
    for _ in range(2):
        with closing(Cashu(path, mint, KEYS["payer"], UNIT_UCR)) as purse:
            assert purse.pay(Invoice(PAYER, PAYEE, address, 2 * UNIT_UCR, "paid")) == paid
            with pytest.raises(Refused, match="another reference"):
                purse.pay(Invoice(PAYER, PAYEE, address, 3 * UNIT_UCR, "paid"))
            with pytest.raises(NetworkError):  # what was begun goes on, as it was asked for then
                purse.pay(Invoice(PAYER, PAYEE, address, 2 * UNIT_UCR, "begun"))
            with pytest.raises(NetworkError):  # it has paid somebody else
                purse.pay(Invoice(PAYER, bytes(32), purse.address, 2 * UNIT_UCR, "paid"))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM done").fetchall() == [("ab" * 32, 1)]
        found = {id: (payer, named, fee, len(json.loads(kept))) for id, _, _, kept, payer, named, fee in
                 db.execute("SELECT * FROM asked")}  # fmt: skip
        begun = invoice_id("cashu", Invoice(PAYER, PAYEE, address, 2 * UNIT_UCR, "begun"))
        assert found == {
            begun: (PAYER, "begun", 0, 2),
            "pay half": (b"", "half", 0, 1),
            "cd" * 32: (b"", "", 1, 2),
        }
        assert db.execute("SELECT spent FROM proofs").fetchall() == [(begun,)]


@pytest.mark.parametrize("done", [0, 1])
def test_what_the_first_form_of_a_purse_had_begun_is_finished(tmp_path: Path, mint: str, done: int) -> None:
    """The mint has swapped; the purse did not learn of it, or died before it wrote down what it had paid."""
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 13 * UNIT_UCR)

    def dies(id: str) -> None:
        raise SystemError("the machine is off")

    payer._outbox.finish, whole = dies, payer._outbox.finish
    with pytest.raises(SystemError):
        payer.pay(invoice(payee, 5))
    id, path, body, outputs, *_ = payer._db.execute("SELECT * FROM asked").fetchone()
    whole(id) if done else payer._mint.ask(path, json.loads(body))
    payer._db.executescript(FIRST_FORM + "DELETE FROM asked; DELETE FROM payments;")
    payer._db.execute("INSERT INTO requests VALUES ('pay November', ?, ?, ?, ?)", (path, body, outputs, done))
    payer._db.execute("UPDATE proofs SET spent = 'pay November' WHERE spent = ?", (id,))
    payer = pair.restart("payer")
    means = payer.pay(invoice(payee, 5))
    assert payer.pay(invoice(payee, 5)) == means
    assert payee.take(means).ucr == 5 * UNIT_UCR
    assert (payer.balance, payee.balance) == (9, 4)
    for rail in pair.opened.values():
        rail.close()


def test_nothing_is_locked_to_what_is_no_key(tmp_path: Path) -> None:
    """A payee says its address itself; what is locked to nonsense is nobody's."""
    purse = Cashu(tmp_path / "purse.sqlite", "http://127.0.0.1:1", b"\x01" * 32, UNIT_UCR)
    for address in ("", "nobody", "02" + "AB" * 32, purse.address + "\n"):
        with pytest.raises(Refused) as caught:
            purse.pay(Invoice(PAYER, PAYEE, address, UNIT_UCR, "November"))
        assert caught.value.code is Code.BAD_CONFIG
    purse.close()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[" * 100_000, b'{"mint": "m", "proofs": [1]}', b'{"mint": "m", "proofs": [{"amount": true}]}',
        b'{"mint":"m","proofs":[{"amount":1,"id":"\\ud800","secret":"s","C":"00"}]}',
        b'{"mint":"m","proofs":[{"amount":1,"id":"0000000000000000","secret":"\\ud800","C":"0000000000000000"}]}',
        b'{"mint":"m","proofs":[{"amount":-1,"id":"0000000000000000","secret":"s","C":"0000000000000000"}]}',
    ],
)  # fmt: skip
def test_what_is_no_token_is_said_to_be_none_before_any_mint_is_asked(tmp_path: Path, body: bytes) -> None:
    purse = Cashu(tmp_path / "purse.sqlite", "http://127.0.0.1:1", b"\x01" * 32, UNIT_UCR)
    for take in (purse.take, purse.locked_until_s):
        with pytest.raises(RemoteProtocolError) as caught:
            take(Means("cashu", PAYER, "November", UNIT_UCR, body).encode())
        assert caught.value.code is Code.BAD_ENCODING
    purse.close()


def test_a_token_that_only_a_signed_swap_spends_is_neither_taken_nor_a_deposit(
    tmp_path: Path, mint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIG_ALL: the mint would not take it from us, and a deposit that cannot be taken deters nobody."""
    pair = purses(tmp_path, mint)
    payer, payee = pair["payer"], pair["payee"]
    pair.fund(payer, payee, 8 * UNIT_UCR)
    until_s = int(time.time()) + 3600

    def signed_whole(*lock: Any) -> str:
        return locked(*lock).replace("SIG_INPUTS", "SIG_ALL")

    with monkeypatch.context() as patched:
        patched.setattr(cashu, "locked", signed_whole)
        for module in (cashu, cashu_means):
            patched.setattr(module, "lock_of", lambda secret: (payee.address, until_s))
        means = payer.pay(invoice(payee, 4), until_s=until_s)
        with pytest.raises(RemoteProtocolError, match="mint refused"):
            payee.take(means)
    for ask in (payee.take, payee.locked_until_s):
        with pytest.raises(RemoteProtocolError, match="not locked to our key"):
            ask(means)
    for rail in pair.opened.values():
        rail.close()


def pain_schema() -> Any:
    """The standard's own, which sepaxml ships; read here, whatever sepaxml looks at when it writes."""
    import sepaxml
    import xmlschema  # sepaxml comes with it

    (folder,) = sepaxml.__path__
    return xmlschema.XMLSchema(Path(folder, "schemas", "pain.001.001.09.xsd"))


def test_a_file_for_the_bank_is_of_the_schema_and_a_statement_of_ours_alone_counts(tmp_path: Path) -> None:
    pair = banks(tmp_path)
    payer, payee = pair["payer"], pair["payee"]
    means = payer.pay(invoice(payee, 13))
    (path,) = (tmp_path / "payer-files").iterdir()
    schema = pain_schema()
    schema.validate(text := path.read_text("utf-8"))
    assert "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09" in text
    for wrong in (
        text.replace("<ReqdExctnDt>", "<Other>").replace("</ReqdExctnDt>", "</Other>"),
        text.replace("DE89", "D£89"),
    ):
        assert wrong != text and not schema.is_valid(wrong)
    for statement in (
        statement_of(path.read_bytes(), status="PDNG"),
        statement_of(path.read_bytes(), direction="DBIT"),
    ):
        payee.read_statement(statement)
        with pytest.raises(RemoteProtocolError) as caught:
            payee.take(means)
        assert caught.value.code is Code.UNPAID
    for nonsense in (b"", b"<a/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"):
        with pytest.raises(FallowError):
            payee.read_statement(nonsense)
    assert payee.read_statement(statement_of(path.read_bytes())) == 1
    assert payee.read_statement(statement_of(path.read_bytes())) == 0
    assert payee.take(means).ucr == 13 * UNIT_UCR
    with pytest.raises(Refused):
        payer.pay(replace(invoice(payee, 1, "x"), address="no account"))
    shutil.rmtree(tmp_path / "payer-files")
    assert payer.pay(invoice(payee, 13)) == means
    for rail in pair.opened.values():
        rail.close()


def test_a_transfer_counts_at_one_of_an_owners_nodes(tmp_path: Path) -> None:
    """Both read the statements of the same account."""
    pair = banks(tmp_path)
    payer, payee = pair["payer"], pair["payee"]
    other = Bank(tmp_path / "o.sqlite", KEYS["other"], ACCOUNTS["payee"], tmp_path / "o", UNIT_UCR, TODAY)
    mine = invoice(payee, 13)
    means = payer.pay(mine)
    for node in (payee, other):
        pair.arrive(payer, node, means)
    assert payee.take(means).ucr == 13 * UNIT_UCR
    with pytest.raises(RemoteProtocolError) as caught:
        other.take(means)
    assert caught.value.code is Code.BAD_RECORD
    # By the same reference, the other node is paid by a transfer of its own.
    means = payer.pay(replace(mine, payee=KEYS["other"]))
    with pytest.raises(RemoteProtocolError) as caught:
        other.take(means)
    assert caught.value.code is Code.UNPAID
    pair.arrive(payer, other, means)
    assert other.take(means).ucr == 13 * UNIT_UCR
    other.close()
    for rail in pair.opened.values():
        rail.close()


DLEQ = "9818e061ee51d5c8edc3342369a554998ff7b4381c8652d724cdf46429be73d"
POINT = "02a9acc1e48c25eeeb9289b5031cc57da9fe72f3fe2861d264bdc074209b107ba2"
MINT_KEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def test_a_mint_that_signs_with_another_key_is_found_out() -> None:
    """The example of NUT-12: the mint's private key is 1, so what it signs is the point itself."""
    check_dleq(f"{DLEQ}9", f"{DLEQ}a", POINT, POINT, MINT_KEY)
    for changed in (
        (f"{DLEQ}8", f"{DLEQ}a", POINT, POINT, MINT_KEY),
        (f"{DLEQ}9", f"{DLEQ}b", POINT, POINT, MINT_KEY),
        (f"{DLEQ}9", f"{DLEQ}a", MINT_KEY, POINT, MINT_KEY),
        (f"{DLEQ}9", f"{DLEQ}a", POINT, MINT_KEY, MINT_KEY),
        (f"{DLEQ}9", f"{DLEQ}a", POINT, POINT, POINT),
        ("None", "None", POINT, POINT, MINT_KEY),
        ("", "", POINT, POINT, MINT_KEY),
        ("00" * 32, "00" * 32, POINT, POINT, MINT_KEY),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            check_dleq(*changed)
        assert caught.value.code is Code.BAD_SIGNATURE


def test_an_owner_that_has_locked_enough_for_long_enough_is_an_anchor(tmp_path: Path, mint: str) -> None:
    """The client is the payee of the deposit: it is the one who could take it."""
    pair = purses(tmp_path, mint)
    owner, client = pair["payer"], pair["payee"]
    pair.fund(owner, client, 60 * UNIT_UCR)
    now_ms, week_s = int(time.time() * 1000), HOLD_MS_MAX // 1000
    long_s, short_s = now_ms // 1000 + 2 * week_s, now_ms // 1000 + week_s - 60

    def kept(name: str, means: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(means)
        return path

    good = owner.pay(invoice(client, 8, "good"), until_s=long_s)
    spent = owner.pay(invoice(client, 4, "spent"), until_s=long_s)
    client.take(spent)
    never = replace(read_means(good, "cashu"), ucr=read_means(good, "cashu").ucr)
    made_up = json.loads(never.body)
    made_up["proofs"] = [
        {**proof, "secret": locked(client.address, long_s, owner.address)} for proof in made_up["proofs"]
    ]
    files = {
        b"g": kept("good", good),
        b"s": kept("spent", spent),
        b"t": kept("short", owner.pay(invoice(client, 4, "short"), until_s=short_s)),
        b"o": kept("other", owner.pay(Invoice(PAYER, PAYEE, owner.address, 4 * UNIT_UCR, "to itself"), until_s=long_s)),
        b"n": kept("no-proof", altered(good, dleq=None)),
        b"m": kept("made-up", replace(never, body=json.dumps(made_up).encode()).encode()),
        b"a": kept("amount", altered(good, amount=64)),
        b"x": tmp_path / "not-there",
        b"l": kept("less", owner.pay(invoice(client, 2, "less"), until_s=long_s)),
        b"w": kept("twice", altered(good, more="")),
    }  # fmt: skip
    named = [Deposit(who * 32, path, 3 * UNIT_UCR) for who, path in files.items()]
    deposits = Deposits(named, lambda: nullcontext(client))
    assert deposits.owners(now_ms) == frozenset()  # not looked at yet
    deposits.look()
    assert deposits.owners(now_ms) == {b"g" * 32}
    assert deposits.owners(now_ms + week_s * 1000 + 60_000) == frozenset()
    client.take(good)
    deposits.look()
    assert deposits.owners(now_ms) == frozenset()
    for rail in pair.opened.values():
        rail.close()


def test_what_cannot_be_seen_does_not_count() -> None:
    def no_mint() -> Any:
        raise NetworkError(Code.PEER_UNREACHABLE, "The mint did not answer.")

    deposits = Deposits([Deposit(bytes(32), Path("means"), 1)], no_mint)
    deposits.look()
    assert deposits.owners(0) == frozenset()


def test_deposits_of_the_trust_file(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_text(f'[[deposit]]\nowner = "{"ab" * 32}"\nmeans = "deposits/one"\nleast_ucr = 5\n')
    assert TrustList.load(tmp_path).deposits == (Deposit(b"\xab" * 32, tmp_path / "deposits/one", 5),)
    for wrong in (
        'owner = "ab"\nmeans = "m"\nleast_ucr = 5',
        f'owner = "{"ab" * 32}"\nmeans = "m"\nleast_ucr = 0',
        "x = 1",
    ):
        (tmp_path / "trust.toml").write_text(f"[[deposit]]\n{wrong}\n")
        with pytest.raises(ConfigError, match="deposit 1"):
            TrustList.load(tmp_path)
