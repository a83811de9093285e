"""`fallow settle`: what payers owe, and what has come in, counted once."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from fallow.cli import run
from fallow.node.journal import Journal
from fallow.node.paid import Payment
from fallow.node.rails.bank import transfer_id
from fallow.protocol.channel import Ground
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import sign
from fallow.protocol.holding import Held
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import LEDGER, Channel, Voucher
from fallow.protocol.prices import Price
from fallow.protocol.receipts import FINAL, Receipt
from fallow.protocol.work import Parameters

NODE, PAYER = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
NOW = 1_795_000_000_000
"""In November 2026."""
ZERO = bytes(32)

Say = Callable[..., Any]


def fill(
    state: Path,
    amounts: tuple[int, ...] = (100, 50),
    *,
    at_ms: int = NOW,
    payer_key: SigningKey = PAYER,
    held_ppm: int = 0,
    release_ms: int = 0,
    forfeited_ucr: int = 0,
) -> None:
    """A journal with a job of each amount, the last one not paid for. Of what is paid, so much is held; of that, forfeited."""
    state.mkdir(exist_ok=True)
    (state / "node.key").touch(mode=0o600)
    (state / "node.key").write_bytes(bytes(NODE))
    payer = bytes(payer_key.verify_key)
    lasts_ms = max(NOW + 10**9, release_ms)
    channel = sign(Channel(payer, bytes(NODE.verify_key), ZERO, LEDGER, 10**6, bytes(16), NOW, lasts_ms, 0), payer_key)
    due = 0
    with closing(Journal(state)) as journal:
        for number, ucr in enumerate(amounts):
            order = sign(
                JobOrder(
                    ZERO, "generate", Parameters(max_tokens=8), 1, 5, 8, ZERO, bytes(NODE.verify_key), ZERO,
                    Price(ZERO, "generate", 0, 1, 4, 0), channel.id, 500, at_ms, bytes([number] * 16),
                    1000, 1000, ZERO, 0, 0, (), None, None,
                ),
                payer_key,
            )  # fmt: skip
            journal.add_order(channel, order, at_ms)
            values = (-1,) * 8
            receipt = sign(Receipt(order.id, 0, None, 0, 8, ZERO, values, "class", ucr, FINAL), NODE)
            journal.add_receipt(receipt, channel.id, Claim(ucr), at_ms + number)
            if number < len(amounts) - 1:
                due += ucr
                held = due * held_ppm // 1_000_000
                parts = (Held(held, release_ms),) if held else ()
                voucher = Voucher(channel.id, receipt.id, due - held, parts, 0)
                journal.add_voucher(sign(voucher, payer_key), at_ms + number)
        if forfeited_ucr:
            journal.add_ground(channel.id, Ground("verdict", ZERO), forfeited_ucr, at_ms + len(amounts))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command with `--json` and gives what it printed; with `code`, what it said on standard error."""

    def say(*words: str | Path, code: int = 0) -> Any:
        assert run([*map(str, words), *([] if code else ["--json"])]) == code
        out, err = capsys.readouterr()
        return err if code else json.loads(out.splitlines()[-1])

    return say


def test_what_is_owed_and_what_has_come_in(tmp_path: Path, say: Say) -> None:
    fill(tmp_path)
    payer = bytes(PAYER.verify_key).hex()
    (debt,) = say("settle", "--state", tmp_path)["debts"]
    assert debt == {
        "payer": payer, "receipts": 2, "owed_ucr": 150, "promised_ucr": 100, "settled_ucr": 0, "open_ucr": 100,
    }  # fmt: skip
    paying = ("settle", payer, "80", "--state", tmp_path, "--reference", "28 November")
    assert say(*paying)["debts"][0]["settled_ucr"] == 80
    assert say(*paying)["debts"][0]["settled_ucr"] == 80
    ahead = say("settle", payer, "50", "--state", tmp_path, "--reference", "29 November", "--rail", "bank")
    assert ahead["debts"][0]["open_ucr"] == -30


def test_a_transfer_that_the_node_has_counted_is_not_counted_by_hand(tmp_path: Path, say: Say) -> None:
    fill(tmp_path)
    payer = bytes(PAYER.verify_key)
    id = transfer_id(payer, bytes(NODE.verify_key), "November")
    with closing(Journal(tmp_path)) as journal:
        assert journal.add_payment(Payment(id, payer, "bank", 80, 0, "November", NOW))
    by_hand = ("settle", payer.hex(), "80", "--state", tmp_path, "--rail", "bank", "--reference")
    assert say(*by_hand, "November")["debts"][0]["settled_ucr"] == 80
    assert say(*by_hand, "December")["debts"][0]["settled_ucr"] == 160
    (tmp_path / "node.key").unlink()
    assert "node.key" in say(*by_hand, "January", code=1)


def test_a_payment_that_says_too_little_is_not_taken(tmp_path: Path, say: Say) -> None:
    fill(tmp_path)
    payer = bytes(PAYER.verify_key).hex()
    assert "reference" in say("settle", payer, "80", "--state", tmp_path, code=1)
    assert "public key" in say("settle", "nobody", "80", "--state", tmp_path, "--reference", "x", code=1)
    assert "micro-credit" in say("settle", payer, "0", "--state", tmp_path, "--reference", "x", code=1)
    assert "state directory" in say("settle", "--state", tmp_path / "none", code=1)
    assert say("settle", "--state", tmp_path)["debts"][0]["settled_ucr"] == 0
