"""The wallet survives: what was promised, whom to avoid, and a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fallow.client.wallet import Wallet
from fallow.protocol.envelope import sign, verify_untrusted
from fallow.protocol.errors import Code, StoreError
from fallow.protocol.payment import Voucher
from fallow.protocol.receipts import Receipt

KEY, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
A, B, OWNER = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32


def receipt(number: int) -> object:
    return sign(Receipt(bytes([number]) * 32, 0, None, 0, 1, A, (-1,), "c", 5, "final"), NODE)


async def test_vouchers_are_cumulative_per_channel_and_on_disk_before_they_are_given_out(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "wallet.db", KEY)
    channel = await wallet.channel(A, OWNER, 0)
    assert await wallet.channel(A, OWNER, 1) is channel
    first = await wallet.pay(channel, receipt(1), 5)  # type: ignore[arg-type]
    second = await wallet.pay(channel, receipt(2), 7)  # type: ignore[arg-type]
    assert (first.record.due_ucr, second.record.due_ucr) == (5, 12)
    assert verify_untrusted(Voucher, second.envelope, signer=wallet.payer) == second
    other = await wallet.channel(B, OWNER, 0)
    await wallet.pay(other, receipt(3), 1)  # type: ignore[arg-type]
    reader = Wallet(tmp_path / "wallet.db", KEY)  # as after a crash: the first one was never closed
    assert reader.owed_by_owner() == {OWNER: 13}


async def test_another_process_opens_channels_of_its_own(tmp_path: Path) -> None:
    first = await Wallet(tmp_path / "wallet.db", KEY).channel(A, OWNER, 0)
    second = await Wallet(tmp_path / "wallet.db", KEY).channel(A, OWNER, 0)
    assert first.channel.id != second.channel.id


async def test_whom_a_verdict_found_at_fault_is_remembered(tmp_path: Path) -> None:
    await Wallet(tmp_path / "wallet.db", KEY).distrust(A, OWNER, "lied", None, 0)
    assert Wallet(tmp_path / "wallet.db", KEY).distrusted == {A}


def test_a_damaged_wallet_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "wallet.db"
    path.write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(StoreError) as caught:
        Wallet(path, KEY)
    assert caught.value.code is Code.CORRUPT_STORE and path.read_bytes().startswith(b"not a database")
