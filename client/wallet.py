"""The client's money and memory in SQLite: channels, receipts, vouchers, verdicts, and whom it no longer deals with.

Written before it is sent: a voucher that a node holds is always known here too. One thread writes. What a process that
died left behind is taken over by the next: its channels, the receipts that it had not answered yet, and the vouchers of
which it does not know that they arrived. How each of them is written and read stands by itself: `wallet_channels`,
`wallet_answers`, `wallet_cases`, `wallet_tellings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio
from nacl.signing import SigningKey

from ..node.machine import chance
from ..node.transaction import transaction
from ..protocol.channel import ChannelState, Ground, Party
from ..protocol.checks import Verdict
from ..protocol.claims import Claim
from ..protocol.disputes import Plea
from ..protocol.envelope import Signed, sign, verify_untrusted
from ..protocol.errors import Code, LocalProtocolError, Refused
from ..protocol.limits import HOLD_MS_MAX, OUTPUT_TOKENS_MAX
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.payment import LEDGER, Channel, Voucher
from ..protocol.receipts import Receipt
from .wallet_answers import Accepted, Answerable, answer_kept, answer_to, plea_kept, plea_to
from .wallet_cases import Case, case_due, case_kept, case_noted, case_over, cases_over, is_case
from .wallet_channels import (
    Channels,
    forfeit_kept,
    forfeit_taken,
    open_receipts,
    receipt_kept,
    serves,
    voucher_kept,
)
from .wallet_disk import Disk
from .wallet_file import Tenure
from .wallet_tellings import (
    Telling,
    telling_kept,
    telling_noted,
    telling_of,
    telling_taken,
    tellings_due,
    tellings_over,
)

CREDIT_LIMIT_UCR = 100_000_000
"""Of one channel: what this process may come to owe one node, and more than a day of one node's work at default prices."""
CHANNEL_MS = 13 * HOLD_MS_MAX
"""A quarter of a year. What is held on one channel cannot be forfeited for a lie on another, so with each new channel a node
has nothing to lose at first, and its next windows are all checked; what is held on this one rolls. Both sides keep each receipt
of a channel at hand, so that it does not last for ever."""
CLOSE_GRACE_MS = 7 * 24 * 3600 * 1000


class Wallet:
    """Channels of this process, and everything that was ever signed on them."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)`."""
        self._key = key
        self._money = trio.Lock()
        """Held from reading a channel's counters to having the new ones on disk."""
        self.telling = trio.Lock()
        """Held from reading what is to be told to having on disk what came of it."""
        self._used: dict[bytes, ChannelState] = {}
        """By node, the channel on which it is paid."""
        self._confirmed: dict[bytes, bytes] = {}
        """Channel -> the voucher that its node has said to have; not on disk yet."""
        self._disk = Disk(path)
        self._database = self._disk.database
        self._tenure = Tenure(path)
        self._channels = Channels(self._database, self._tenure, self.payer)
        rows = self._database.execute("SELECT node FROM faults").fetchall()
        self.distrusted: set[bytes] = {row[0] for row in rows}
        """Nodes that a verdict of ours found at fault: not picked again."""

    @property
    def payer(self) -> bytes:
        """The client's public key."""
        return bytes(self._key.verify_key)

    def close(self) -> None:
        """Everything is on disk, and the channels may be taken over by another process."""
        with transaction(self._database):
            confirmed = [(voucher, channel) for channel, voucher in self._confirmed.items()]
            self._database.executemany("UPDATE channels SET confirmed = ? WHERE id = ?", confirmed)
        self._database.close()
        self._tenure.end()

    async def channel(self, node: bytes, owner: bytes, needed_ucr: int, now_ms: int) -> ChannelState:
        """This process's channel to a node, on disk, with room for `needed_ucr`; opened now if there is none that lasts.

        Raises `Refused(credit_exhausted)` for more than any channel's limit.
        """
        if needed_ucr > CREDIT_LIMIT_UCR:
            raise Refused(
                Code.CREDIT_EXHAUSTED, f"{needed_ucr} ucr are more than a channel's limit of {CREDIT_LIMIT_UCR}."
            )
        async with self._money:
            latest = partial(self._channels.latest_to, node, now_ms)
            state = self._used.get(node) or await self._disk.in_thread(latest)
            if state and serves(state, owner, needed_ucr, now_ms):
                self._used[node] = state
                return state
            record = Channel(
                self.payer,
                node,
                owner,
                LEDGER,
                CREDIT_LIMIT_UCR,
                chance().randbytes(16),
                now_ms,
                now_ms + CHANNEL_MS,
                CLOSE_GRACE_MS,
            )
            state = ChannelState(Party.PAYER, sign(record, self._key))
            await self._disk.write(self._channels.kept(state.channel))
            self._channels.add(state)
            self._used[node] = state
            return state

    async def keep_receipt(self, receipt: Signed[Receipt], owner: bytes, channel: ChannelState, claim: Claim) -> None:
        """The receipt is on disk, as one that is to be answered."""
        await self._disk.write(receipt_kept(receipt, owner, channel.channel.id, claim))

    async def refuse(self, receipts: Sequence[Signed[Receipt]]) -> None:
        """It was decided that these receipts get no voucher: neither from this process nor from a later one."""
        if receipts:
            await self._disk.write(
                *(("UPDATE receipts SET refused = 1 WHERE id = ?", (receipt.id,)) for receipt in receipts)
            )

    async def leave(self, channel: ChannelState) -> None:
        """No more is ordered on the channel, by this process or a later one: its node says that nothing more is covered. It may
        have claimed what a process that was killed never heard of, so that there is less room than is known here. What was
        promised stays owed, and what is held can be forfeited."""
        node = channel.channel.record.payee
        if self._used.get(node) is channel:
            del self._used[node]
        await self._disk.write(("UPDATE channels SET expires_ms = 0 WHERE id = ?", (channel.channel.id,)))

    def channel_to(self, node: bytes) -> ChannelState | None:
        """This process's channel to the node, if it has opened one."""
        return self._used.get(node)

    def held_ucr(self, node: bytes, now_ms: int) -> int:
        """What this process holds back of the node's pay."""
        state = self._used.get(node)
        return state.held_ucr(now_ms) if state else 0

    async def pay(self, channel: ChannelState, receipt: Signed[Receipt], claim: Claim, now_ms: int) -> Signed[Voucher]:
        """A voucher that answers the receipt, on disk and ready to be sent. Once begun, it is not left half done."""
        async with self._money:
            voucher = sign(channel.pay(receipt.id, claim, now_ms), self._key)
            with trio.CancelScope(shield=True):  # as long as a commit takes
                await self._disk.write(voucher_kept(voucher, claim, restated=False))
                channel.paid(voucher, claim)
            return voucher

    async def forfeit(self, channel: ChannelState, ground: Ground, ucr: int, now_ms: int) -> Signed[Voucher]:
        """A voucher without so much of what was held, on disk with the ground, and ready to be sent after it.

        Our caller has judged the verdict or evidence. Raises `LocalProtocolError` for more than is held, or after its release.
        """
        async with self._money:
            known = ground in channel.grounds
            channel.forfeit(ground, ucr, now_ms)
            try:
                voucher = sign(channel.restate(now_ms), self._key)
                with trio.CancelScope(shield=True):  # as long as a commit takes: both are on disk, or neither is
                    await self._disk.write(
                        forfeit_kept(channel.channel.id, ground, ucr), voucher_kept(voucher, Claim(0), restated=True)
                    )
            except BaseException:
                if not known:
                    del channel.grounds[ground]
                raise
            channel.paid(voucher, channel.named[voucher.record.receipt])
            return voucher

    async def give_up(self, channel: ChannelState, telling: Telling, ucr: int, now_ms: int) -> Telling:
        """The telling's ground has forfeited `ucr` and no more, and its node has said so: that is on disk, with the voucher by
        which the rest is due after all. What comes back is what was told.

        Raises `LocalProtocolError` once the channel's grace is over.
        """
        ground, told = telling.ground, replace(telling, ucr=ucr, told=True)
        async with self._money:
            voucher = sign(channel.yielding(ground, ucr, now_ms), self._key)
            with trio.CancelScope(shield=True):  # as long as a commit takes: all of it is on disk, or nothing is
                await self._disk.write(
                    forfeit_taken(channel.channel.id, ground, ucr),
                    voucher_kept(voucher, Claim(0), restated=True),
                    telling_taken(told),
                )
                channel.yielded(ground, ucr, voucher)
        return told

    def confirmed(self, channel: bytes, voucher: bytes) -> None:
        """The node has this voucher. Noted on disk when the wallet is closed: a crash costs that it is brought once more."""
        self._confirmed[channel] = voucher

    async def take_over(self, now_ms: int) -> list[ChannelState]:
        """Channels of processes that have ended are this one's. Those come back of which the node may lack something: first
        every receipt that was kept and neither answered nor refused has got its voucher.

        A node that was found at fault is not paid for what was open.
        """
        await self._disk.in_thread(partial(self._channels.adopt, now_ms))
        lacking = []
        for state in await self._disk.in_thread(partial(self._channels.unfinished, now_ms)):
            if state.channel.record.payee not in self.distrusted:
                await self._answer_open(state, now_ms)
            if state.latest is not None and self._confirmed.get(state.channel.id) != state.latest.id:
                lacking.append(state)
        return lacking

    async def keep_answer(
        self,
        order: Signed[JobOrder],
        opening: Opening,
        opens: tuple[bytes, str] | None,
        now_ms: int,
        accepted: Accepted | None = None,
    ) -> None:
        """What opens the order is on disk for as long as anybody may ask for it: in plain, as what was asked is.

        `opens`: nonce and policy to which it is committed, if they are to be shown.
        """
        await self._disk.write(*answer_kept(order, opening, opens, accepted, now_ms))

    def answer(self, order: bytes) -> Answerable | None:
        """What opens the order; None if it is not kept."""
        return answer_to(self._database, order, self.payer)

    async def answered(self, receipt: Signed[Receipt]) -> tuple[Answerable | None, list[Signed[Receipt]]]:
        """What opens the receipt's order, None if it is not kept; and the order's receipts up to this one, in their order: from
        the first on, unless one before is not kept. Raises `StoreError`."""

        def read() -> tuple[Answerable | None, list[Signed[Receipt]]]:
            return self.answer(receipt.record.order), self._until(receipt)

        return await self._disk.in_thread(read)

    def _until(self, receipt: Signed[Receipt]) -> list[Signed[Receipt]]:
        chain = [receipt]
        while len(chain) <= OUTPUT_TOKENS_MAX and (previous := chain[-1].record.previous):
            row = self._database.execute("SELECT envelope FROM receipts WHERE id = ?", (previous,)).fetchone()
            if row is None:
                break
            chain.append(verify_untrusted(Receipt, row[0], signer=receipt.signer))
        return chain[::-1]

    async def keep_plea(self, plea: Signed[Plea], proof: bytes, now_ms: int) -> tuple[bytes, bytes] | None:
        """What every judge is to be given in answer to the dispute, plea and proof: the first that was ever kept. None if as
        many are kept as there may be."""
        await self._disk.write(*plea_kept(plea, proof, now_ms))
        return self.plea(plea.record.dispute)

    def plea(self, dispute: bytes) -> tuple[bytes, bytes] | None:
        """What was answered to the dispute, plea and proof; None if nothing was."""
        return plea_to(self._database, dispute)

    def vouchers_for(self, receipt: bytes, payee: bytes) -> list[bytes]:
        """Envelopes of the vouchers to this node that name the receipt."""
        rows = self._database.execute(
            "SELECT v.envelope FROM vouchers v JOIN channels c ON c.id = v.channel WHERE v.receipt = ? AND c.payee = ?",
            (receipt, payee),
        ).fetchall()
        return [bytes(row[0]) for row in rows]

    def payout_owner(self, channel: bytes) -> bytes | None:
        """Whom what is promised on the channel belongs to; None if it is none of this wallet's."""
        row = self._database.execute("SELECT owner FROM channels WHERE id = ?", (channel,)).fetchone()
        return bytes(row[0]) if row else None

    def has_paid(self, payee: bytes) -> bool:
        """Whether any channel leads, or led, to this node: nobody else has worked for this client."""
        return self._database.execute("SELECT 1 FROM channels WHERE payee = ?", (payee,)).fetchone() is not None

    async def keep_telling(self, telling: Telling) -> None:
        """It is on disk, as something of which its node does not know yet. Of one matter, the first one stands, and the latest
        addresses."""
        await self._disk.write(telling_kept(telling))

    async def telling_of(self, matter: bytes) -> Telling | None:
        """As it is on disk now; None once it is nothing any more."""
        return await self._disk.in_thread(partial(telling_of, self._database, matter))

    async def tellings(self, now_ms: int) -> list[Telling]:
        """Those on channels that are this process's, or of one that has ended, which are due for another try, oldest first. Of
        channels whose grace is over nothing is told any more, and nothing is kept."""
        await self._disk.in_thread(partial(self._channels.adopt, now_ms))
        await self._disk.write(tellings_over(now_ms))
        ours = partial(tellings_due, self._database, self._tenure.process, self.payer)
        return await self._disk.in_thread(partial(ours, now_ms))

    async def note_telling(self, telling: Telling, next_ms: int) -> None:
        """What it has come to is on disk, and when it is tried again."""
        await self._disk.write(telling_noted(telling, next_ms))

    async def state_of(self, channel: bytes, now_ms: int) -> ChannelState | None:
        """The channel's counters, if they are this process's, or of one that has ended; None while another has them."""
        await self._disk.in_thread(partial(self._channels.adopt, now_ms))
        return await self._disk.in_thread(partial(self._channels.find, channel))

    async def keep_verdict(self, verdict: Signed[Verdict], case: Case | None, now_ms: int) -> bool:
        """The verdict is on disk, and with it what judges are to be asked about. False: as many cases are as there may be, and
        this is none. Raises `StoreError`: then neither is."""
        kept = ("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (verdict.id, verdict.envelope))
        if case is None:
            await self._disk.write(kept)
            return True
        await self._disk.write(kept, *case_kept(case, now_ms))
        return await self._disk.in_thread(partial(is_case, self._database, verdict.id))

    async def due_case(self, now_ms: int) -> Case | None:
        """Of the cases that are due for a try, on channels that are this process's, or of one that has ended, the one that was
        tried least. Raises `StoreError`."""
        await self._disk.in_thread(partial(self._channels.adopt, now_ms))
        await self._disk.write(cases_over(now_ms))
        ours = partial(case_due, self._database, self._tenure.process, self.payer)
        return await self._disk.in_thread(partial(ours, now_ms))

    async def note_case(self, case: Case, next_ms: int) -> None:
        """When it is tried again is on disk, and how often it has been."""
        await self._disk.write(case_noted(case, next_ms))

    async def end_case(self, verdict: bytes) -> None:
        """Nothing more can come of it: it is no case any more."""
        await self._disk.write(case_over(verdict))

    async def distrust(self, node: bytes, owner: bytes, reason: str, verdict: bytes | None, now_ms: int) -> None:
        """The node is not picked again, by this process or a later one."""
        self.distrusted.add(node)
        await self._disk.write(
            (
                """INSERT INTO faults VALUES (?, ?, ?, ?, ?) ON CONFLICT (node) DO UPDATE SET owner = excluded.owner,
                   reason = excluded.reason, verdict = coalesce(excluded.verdict, verdict), at_ms = excluded.at_ms""",
                (node, owner, reason, verdict, now_ms),
            )
        )

    def sign_verdict(self, verdict: Verdict) -> Signed[Verdict]:
        """A client's own verdict: it stops its own dealings, and anyone can recompute it."""
        return sign(verdict, self._key)

    def owed_by_owner(self) -> dict[bytes, int]:
        """Micro-credits promised and not forfeited, by the owner they are promised to, over all channels of this wallet."""
        rows = self._database.execute(
            """SELECT owner, SUM(ucr) FROM channels JOIN (
                   SELECT channel, added_ucr AS ucr FROM vouchers UNION ALL SELECT channel, -ucr FROM forfeits
               ) ON channel = channels.id GROUP BY owner"""
        )
        return dict(rows.fetchall())

    async def _answer_open(self, state: ChannelState, now_ms: int) -> None:
        for envelope, node, claim in open_receipts(self._database, state.channel.id):
            try:
                await self.pay(state, verify_untrusted(Receipt, envelope, signer=node), claim, now_ms)
            except LocalProtocolError:
                return  # the channel's grace or limit is over: nothing that is signed now would count
