"""Every bound of the protocol, each with its reason. Bounds of one process's own resources stand with that process."""

from __future__ import annotations

from typing import Final

RECORD_BYTES_MAX: Final = 256 * 1024
"""A signed record other than a manifest; the largest real one, a verdict over long answers, is under 64 KiB."""

MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024 - 1024
"""A manifest lists a 32-byte hash per MiB of weights: enough for a 100 GB model, and with its head one frame."""

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""One frame on a stream. py-libp2p moves it in about 50 ms; bigger things are chunked."""

DEPTH_MAX: Final = 16
"""Nesting of any decoded value; the deepest record uses 5."""

ENTRIES_MAX: Final = 2**20
"""Entries of all lists and maps of one value: the manifest of 65 536 tensors has half as many."""

MESSAGE_ENTRIES_MAX: Final = 4096
"""The same for a message, which strangers send: the fullest has 40. Reading so many takes a node about a millisecond."""

CHUNK_BYTES: Final = 1024 * 1024
"""Files of a bundle are addressed in pieces of this size: small enough to verify while streaming, few enough to list."""

NAMED_MAX: Final = 32
"""Chunks that one answer names, of those that a node has of a bundle that is coming: a kilobyte for one that is not there."""

SKEW_MS: Final = 120_000
"""Tolerance on absolute times: consumer clocks without NTP drift by seconds a day."""

MANDATE_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""A stolen node key works for its owner's account no longer than this."""

PROFILE_MS_MAX: Final = 30 * 60 * 1000
"""A profile in the DHT is a hint; after this it is not even that."""

WITNESS_MS_MAX: Final = 30 * 60 * 1000
"""A statement about a connection is worth no more than the profile beside it."""

WITNESSES_MAX: Final = 4
"""Statements that a node shows: a median over four owners, and a reply stays within some 10 KB."""

WITNESS_OWNERS_MIN: Final = 2
"""Owners whose statements outweigh a node's own word: one alone may be a friend."""

MANDATE_BYTES_MAX: Final = 1024
"""A mandate inside of a statement; the real one, with its issuer, has about 700 bytes."""

RATE_BYTES_MAX: Final = 1024 * 1024
"""One transfer of those by which a rate is measured: 80 ms at 100 Mbit/s, 8 s at the slowest rate worth telling."""

WORKER_KEY_MS_MAX: Final = 60 * 60 * 1000
"""Input sealed to a worker's key is safe once the worker has gone; it is replaced at least this often."""

WINDOW_TOKENS: Final = 32
"""One receipt for so many tokens: the most that either side can lose, and the statistical unit of a check."""

OUTPUT_TOKENS_MAX: Final = 4096
INPUT_TOKENS_MAX: Final = 32_768
"""Orders of this size still fit a frame; a bundle's own context is what usually bounds."""

CALL_INPUTS_MAX: Final = 64
"""Inputs of one function call: keeps one order's result in one frame and one worker turn short."""

DEVICES_MAX: Final = 64
"""Over which one program lies: eight accelerators are one machine's today, and no mesh of them reaches beyond it here."""

SLOTS_MAX: Final = 64
"""Sequences side by side in one run: beyond 16 a step's time grows with them on all that was measured."""

INPUTS_MAX: Final = 16
"""Arrays that a function takes or gives, and the state of a stream among them."""

CHEATS_MAX: Final = 32
"""Kinds of cheating that a bundle's tolerance was measured against."""

STOP_STRINGS_MAX: Final = 4
"""As the chat API that most clients already speak."""

TEXT_BYTES_MAX: Final = 1024
"""Names, reasons and details that a person reads."""

PROGRAM_BYTES_MAX: Final = 16 * 1024 * 1024
"""An artifact: SmolLM2's largest has 0.3 MB, one of 200 layers some 5 MB. Weights are arguments, never constants."""

PROGRAM_CONSTANTS_BYTES_MAX: Final = 4 * 1024 * 1024
"""Arrays written out in one program, all together: tables of numbers that it computes with, not weights."""

PROGRAM_OPERATIONS_MAX: Final = 100_000
"""Operations of a program after inlining. SmolLM2's 30 layers take 7,000, which compile in some seconds."""

PROGRAM_DEPTH_MAX: Final = 32
"""Regions and calls inside of each other in a program; jax nests its own functions to some 6."""

PRICES_MAX: Final = 64
BUNDLES_MAX: Final = 64
PROGRAMS_MAX: Final = 64
TENSORS_MAX: Final = 65_536
CHUNKS_MAX: Final = 100_000
ADDRESSES_MAX: Final = 16
"""Bounds of lists in records, each well above what the largest deployment planned needs."""

PRICE_MAX_UCR: Final = 10_000_000
"""What one order may cost unless its caller says otherwise: ten credits, far above today's prices, and not ruinous."""

HEARTBEAT_MS: Final = 250
SILENCE_MS_MAX: Final = 750
"""Three missed heartbeats and the executor counts as gone: TCP alone does not notice a frozen process for minutes."""

ACCEPT_MS_MAX: Final = 2_000
"""From order to Accept or Refuse; an order is answered from memory, so this is a round trip on a bad mobile link."""

VOUCHER_MS_MAX: Final = 20_000
"""How long an executor waits, delivering nothing, for the voucher of its last window: a checker's prefill fits in."""

YIELD_MS_MAX: Final = 1_000
"""How long a leaving node waits for the last voucher; the accelerator is already idle by then."""

JOB_MS_MAX: Final = 15 * 60 * 1000
"""A stream that is still open after this is closed by either side."""

QUORUM_MAX: Final = 16
"""Members of one quorum; beyond it a committee is the better instrument."""

FINDINGS_MAX: Final = 512
"""Members named in one verdict: 128 windows of the longest answer may each be checked by four others."""

EVIDENCE_MAX: Final = OUTPUT_TOKENS_MAX // 8
"""Receipts and attestations of one member in one verdict: windows of a full answer, twice over for resumed parts."""

CONTRADICTION_RECORDS_MAX: Final = 20
"""Signed records in one piece of evidence: two contradict each other, a roster's leases can overdraw one share."""

CONTRADICTION_BYTES_MAX: Final = 12 * 1024
"""Of one record in it: the largest, a profile of 64 bundles, has about 11 KB."""

CANDIDATES_MAX: Final = 32
"""Owners from whom a committee may be drawn: the list stands in each order that agrees to one, at 34 bytes a piece."""

HOLD_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""Pay is held back no longer than a mandate lasts: who is to forfeit it can still be named by then."""

HELD_MAX: Final = 8
"""Parts of what one voucher holds: a week in steps of a day, and one for clocks. They take some 270 bytes."""

DISPUTES_MAX: Final = 64
"""Open against one key at one judge: the ones whose time to answer runs out first are told first."""

PLEA_BYTES_MAX: Final = 512
"""Of a plea, wherever it is: a claimant carries those of all judges to each. The real one has under 350 bytes."""

RAILS_MAX: Final = 8
"""On which one node can be paid: today there are three."""

MEANS_BYTES_MAX: Final = 256 * 1024
"""Some hundred tokens of ecash, or a bank's answer of a day."""

GROUNDS_MAX: Final = 256
"""Forfeits on one channel: whom so many verdicts went against is sent no more orders long before."""

ISSUER_MS_MAX: Final = 400 * 24 * 3600 * 1000
"""An owner takes the cold key out once a year, and has a month's grace to do so."""

ISSUER_BYTES_MAX: Final = 512
"""An issuer's record inside of each mandate that it signs; the real one has about 300 bytes."""

PUBLISHED_BYTES_MAX: Final = 16 * 1024
"""A value in the DHT: profiles take 1 to 4 KB, and twenty strangers keep each copy in memory."""

WATTS_MAX: Final = 10**9
"""One gigawatt: more than any feeder carries, and sums over a roster stay exact in every language's numbers."""

SHED_MS_MAX: Final = 24 * 3600 * 1000
"""A forgotten shed order ends by itself within a day; a longer need is said again."""

SHED_AHEAD_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""Utilities announce events a day ahead, over a holiday some days; so long a node remembers what was replaced."""

SHED_BYTES_MAX: Final = 2048
"""A signed shed order: its reason alone may have 1 KiB."""

SHED_ORDERS_MAX: Final = 512
"""Orders of one grid key that a node keeps for others to hear of: with their ids, an exchange has 16 KB."""

SHED_SENT_MAX: Final = 32
"""Orders in one message: what it costs to check them stays at some 3 ms."""

ROSTER_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""A roster cannot be taken back, only capped by shed orders: a share given in error is gone within a week, as a mandate."""

ROSTER_MEMBERS_MAX: Final = 200
"""A low-voltage transformer serves some hundred connections; a full roster, 11.7 KB, still fits a piece of evidence."""

LEASE_MS_MAX: Final = 60 * 60 * 1000
"""What was lent to a member that has gone silent is back within an hour."""

LEASES_MAX: Final = 12
"""Leases of one lender in force at one time: one more of them, with the roster, still is one piece of evidence."""

BORROWERS_MAX: Final = 4
"""Members to whom one may lend: for each there is room for a lease that ends, one that follows it, and one for more in between
(`LEASES_MAX` in all)."""

ROSTERS_MAX: Final = 4
"""Rosters of one feeder that a member keeps: the last one until no clock takes it, the one that holds, and two ahead."""
