"""What paying takes of one core: `python benchmarks/payment.py`.

Verdicts judged from signed records, vouchers signed and honoured, and what both sides write for them, by the functions that
clients and nodes use. Processor time of this process, so that others on the machine count little; wall time beside it for what
waits for a disk. Medians of rounds.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import trio
from nacl.signing import SigningKey

from fallow.client.wallet import Wallet
from fallow.node.accounts import Accounts
from fallow.node.journal import Journal
from fallow.protocol.channel import ChannelState, Party
from fallow.protocol.claims import Claim, claim_of
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.limits import HELD_MAX, HOLD_MS_MAX
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import Channel, Voucher
from fallow.protocol.prices import Price
from fallow.protocol.receipts import OPEN, Receipt
from fallow.protocol.work import Parameters
from fallow.verifier.case import gather
from fallow.verifier.settlement import settle
from fallow.verifier.verdict import judge

ROUNDS, EACH = 15, 40
NODE, CLIENT, OWNER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
NODE_KEY, CLIENT_KEY, OWNER_KEY = (bytes(key.verify_key) for key in (NODE, CLIENT, OWNER))
H = bytes(32)
VALUES = tuple(range(-90_000, 0, 2_813))
"""Of 32 tokens."""
Step = Callable[[int], Awaitable[object]]


async def run() -> None:
    print("| what | a core does per second | with the disk, per second |")
    print("|---|---|---|")
    job = _text()
    verdict = judge(gather(job.question, job.records, job.openings))
    receipts = [signed for signed in job.records if isinstance(signed.record, Receipt)]
    await row(
        "verdict of 3 windows, 2 checkers each", lambda n: _done(judge(gather(job.question, job.records, job.openings)))
    )
    await row("the same signed", lambda n: _done(sign(verdict, CLIENT)))
    await row("settlement of it", lambda n: _done(settle(verdict, receipts)))
    with tempfile.TemporaryDirectory() as folder:
        await _both_sides(Path(folder))


async def _both_sides(folder: Path) -> None:
    wallet, journal = Wallet(folder / "wallet.db", CLIENT), Journal(folder)
    accounts, clock = Accounts(journal, _wall_ms), 0
    state = await wallet.channel(NODE_KEY, OWNER_KEY, 0, _wall_ms())
    account = await accounts.open(state.channel)
    order = sign(
        JobOrder(
            H, "generate", Parameters(max_tokens=4096), 1, 5, 4096, H, NODE_KEY, H,
            Price(H, "generate", 0, 1, 4, 0), state.channel.id, 10**6, _wall_ms(), bytes(16), 1000,
            1000, H, 0, 0, (), None, None,
        ),
        CLIENT,
    )  # fmt: skip
    await accounts.accept(account, order)
    count = ROUNDS * EACH + 1
    receipts = [_receipt(order, number) for number in range(count)]
    scratch = ChannelState(Party.PAYER, state.channel)

    async def signed(number: int) -> None:
        receipt = receipts[number]
        voucher = sign(scratch.pay(receipt.id, Claim(1), clock), CLIENT)
        scratch.paid(voucher, Claim(1))

    vouchers: list[Signed[Voucher]] = []

    async def paid(number: int) -> None:
        vouchers.append(await wallet.pay(state, receipts[number], Claim(1), _wall_ms()))

    await row("receipt of 32 tokens signed", lambda n: _done(_receipt(order, n + count)))
    await row("node: receipt written", lambda n: accounts.claim(account, order.record, receipts[n], 1))
    await row("client: receipt written", lambda n: wallet.keep_receipt(receipts[n], OWNER_KEY, state, Claim(1)))
    await row("client: voucher counted and signed", signed)
    await row("client: voucher counted, signed and written", paid)
    await row(
        "node: voucher verified", lambda n: _done(verify_untrusted(Voucher, vouchers[n].envelope, signer=CLIENT_KEY))
    )
    await row("node: voucher checked, written and counted", lambda n: accounts.honour(account, vouchers[n]))
    wallet.close()
    journal.close()
    await _rolling(state.channel, [receipt.id for receipt in receipts])


async def _rolling(channel: Signed[Channel], receipts: list[bytes]) -> None:
    """The same in memory alone where half of the pay is held for a week, ten receipts a day."""
    payer, payee, began_ms = ChannelState(Party.PAYER, channel), ChannelState(Party.PAYEE, channel), _wall_ms()
    vouchers: list[Signed[Voucher]] = []

    def claim(number: int) -> tuple[Claim, int]:
        now_ms = began_ms + number * HOLD_MS_MAX // 70
        return claim_of(2, 500_000, HOLD_MS_MAX, now_ms), now_ms

    async def signed(number: int) -> None:
        vouchers.append(sign(payer.pay(receipts[number], *claim(number)), CLIENT))
        payer.paid(vouchers[-1], claim(number)[0])

    async def taken(number: int) -> None:
        payee.receive(verify_untrusted(Voucher, vouchers[number].envelope, signer=CLIENT_KEY), *claim(number))

    await row("client: voucher in seven parts counted and signed", signed)
    await row("node: voucher in seven parts verified, checked and counted", taken)
    assert len(vouchers[-1].record.held) == HELD_MAX - 1 and payee.latest == vouchers[-1]


async def row(what: str, step: Step) -> None:
    """Calls `step` with 0, 1, 2, ... and prints how many of them fit into a second."""
    cpu, wall, number = [], [], 1
    await step(0)
    for _ in range(ROUNDS):
        began, began_cpu = time.perf_counter(), time.process_time()
        for _ in range(EACH):
            await step(number)
            number += 1
        cpu.append((time.process_time() - began_cpu) / EACH)
        wall.append((time.perf_counter() - began) / EACH)
    cells = [f"{1 / median(samples):,.0f}".replace(",", " ") for samples in (cpu, wall)]
    print(f"| {what} | {' | '.join(cells)} |", flush=True)


async def _done(value: object) -> object:
    return value


def _receipt(order: Signed[JobOrder], number: int) -> Signed[Receipt]:
    return sign(Receipt(order.id, number, None, 0, 32, H, VALUES, "class", number + 1, OPEN), NODE)


def _text() -> Any:
    """A text of three windows as the verifier's tests have it, each confirmed by two checkers."""
    jobs = _module("verifier/jobs.py")
    job = jobs.Job("quorum:2/3")
    writer = job.text(10)
    for start, tokens, end in ((0, 32, "open"), (32, 32, "open"), (64, 16, "final")):
        writer.write(start, tokens)
        receipt = writer.receipt(end)
        for checker in (11, 12):
            job.check(checker, receipt, start + tokens)
    return job


def _module(name: str) -> Any:
    path = Path(__file__).parent.parent / "tests" / name
    spec = importlib.util.spec_from_file_location(f"fallow_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    trio.run(run)
