"""The client: `connect` joins the mesh, `Mesh` asks it for work."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from ..node.book import BOOK, Book, Met
from ..node.gossip import FAULTS, Gossip
from ..node.keys import load_or_create
from ..node.machine import chance, wall_ms
from ..node.network.seam import CIRCUIT
from ..node.network.table_rules import profile_rules
from ..node.rails.opening import FOLDER, open_ledger
from ..node.trust import TrustList
from ..protocol.bundle import CALL, GENERATE, Manifest
from ..protocol.checks import Verdict
from ..protocol.errors import Code, FallowError, NetworkError, Refused
from ..protocol.identity import cid, cid_hash_untrusted, peer_id, peer_key_untrusted
from ..protocol.limits import CALL_INPUTS_MAX, OUTPUT_TOKENS_MAX, STOP_STRINGS_MAX
from ..protocol.messages import EVIDENCE_PROTOCOL
from ..protocol.work import Parameters, Piece, Work
from ..verifier.compare import numbers_of
from .answering import answer_disputes
from .answers import Answer, Batch, Chunk, Embeddings, NodeView, Outputs, Usage
from .arrays import Given, outputs_of, rows_of, work_of
from .assurance import DEFAULT, read_assurance
from .auditing import Auditor
from .batch import Done, check_count, identity_of, run_batch
from .bundles import Bundles, ClientBundle
from .deposits import Deposits, open_cashu
from .discovery import Discovery, Node
from .draft import TextRequest
from .execution import Desk
from .functions import CallJob, CallRequest
from .history import HISTORY, History, Standing
from .late import Late
from .scheduler import Experience
from .settling import Settler
from .spotting import Spots
from .team import Team
from .telling import keep_telling
from .text import TextJob
from .tokenizer import Prompt
from .wallet import Wallet

ASSURANCE = DEFAULT
"""What is asked for unless the caller says otherwise."""
PRICE_MAX_UCR = 10_000_000
"""What one order may cost unless the caller says otherwise: ten credits."""
SEEDS = 2**62
"""So many seeds there are to choose from; an order's seed is a 63-bit integer."""
LEAVE_S = 3.0
"""For paying what streams that were left early delivered, before a client leaves."""


class Mesh:
    """A client that has joined. Made by `connect`; every method may be called from many tasks at once."""

    def __init__(self, team: Team, bundles: Bundles, trust: TrustList, nursery: trio.Nursery) -> None:
        self._team = team
        self._bundles = bundles
        self._trust = trust
        self._nursery = nursery
        self._streams: set[TextStream] = set()

    async def generate(
        self,
        bundle: str,
        prompt: Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        assurance: str = ASSURANCE,
        price_max_ucr: int = PRICE_MAX_UCR,
        executors: Sequence[str] = (),
    ) -> Answer:
        """The whole answer. `executors` are peer ids to be preferred, in order. Raises `FallowError` subclasses."""
        request = await self._text_request(
            bundle, prompt, max_tokens, temperature, top_p, seed, stop, assurance, price_max_ucr, executors
        )
        with one_error():
            return await TextJob(self._team, request, lambda chunk: None).run()

    def stream(
        self,
        bundle: str,
        prompt: Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        assurance: str = ASSURANCE,
        price_max_ucr: int = PRICE_MAX_UCR,
        executors: Sequence[str] = (),
    ) -> TextStream:
        """The answer as it comes; errors are raised where it is iterated."""

        async def begin(emit: Callable[[Chunk], None]) -> TextJob:
            request = await self._text_request(
                bundle, prompt, max_tokens, temperature, top_p, seed, stop, assurance, price_max_ucr, executors
            )
            return TextJob(self._team, request, emit)

        stream = TextStream(begin, self._nursery)
        self._streams = {other for other in self._streams if not other.done.is_set()} | {stream}
        return stream

    async def embed(
        self,
        bundle: str,
        texts: Sequence[str],
        *,
        assurance: str = ASSURANCE,
        price_max_ucr: int = PRICE_MAX_UCR,
        executors: Sequence[str] = (),
    ) -> Embeddings:
        """One vector for each text. Raises `FallowError` subclasses."""
        if not 1 <= len(texts) <= CALL_INPUTS_MAX:
            raise Refused(Code.TOO_LARGE, f"One call takes 1 to {CALL_INPUTS_MAX} texts, not {len(texts)}.")
        opened = await self._open(bundle, CALL)
        sequences = tuple(self._text_input(opened, text) for text in texts)
        job, piece, verdict = await self._call(opened, Work(sequences), assurance, price_max_ucr, executors)
        rows = numbers_of(piece)
        assert rows is not None, "a result without rows is never accepted"
        usage = Usage(sum(map(len, sequences)), 0)
        return Embeddings(rows, verdict, tuple(job.dossier.receipts), usage, job.dossier.proof())

    async def call(
        self,
        bundle: str,
        inputs: Sequence[Mapping[str, Given]],
        *,
        assurance: str = ASSURANCE,
        price_max_ucr: int = PRICE_MAX_UCR,
        executors: Sequence[str] = (),
    ) -> Outputs:
        """The bundle's function of arrays on each of the inputs; every input is computed by itself.

        An input names each of the arrays that the bundle takes: a buffer of the right element type and shape (NumPy's
        arrays among them), little-endian `bytes`, a number, or nested lists of numbers. Raises `FallowError` subclasses.

        A stream's state is among a function's inputs and outputs, and goes on at whichever nodes are there:

            for chunk in chunks:
                (row,) = await mesh.call("vad", [{"audio": chunk, "state": state}])
                state = row["state"]
        """
        opened = await self._open(bundle, CALL)
        work = work_of(opened.manifest, inputs)
        job, piece, verdict = await self._call(opened, work, assurance, price_max_ucr, executors)
        rows = outputs_of(opened.manifest, piece)
        return Outputs(rows, verdict, tuple(job.dossier.receipts), Usage(work.input_tokens, 0), job.dossier.proof())

    async def batch(
        self,
        bundle: str,
        inputs: Sequence[Mapping[str, Given]] | Sequence[str],
        *,
        checkpoint: Path | str | None = None,
        assurance: str = ASSURANCE,
        price_max_ucr: int = PRICE_MAX_UCR,
        executors: Sequence[str] = (),
    ) -> Batch:
        """As `call`, or `embed` for texts, on as many inputs as you like, in parts: whoever leaves costs no part that is done.

        With `checkpoint`, a file, another call with the same inputs goes on where this one ended. `price_max_ucr` is of each
        part.
        Raises `FallowError` subclasses, with how far it came.
        """
        check_count(inputs)
        opened = await self._open(bundle, CALL)
        manifest = opened.manifest
        works = [self._one_input(opened, each) for each in inputs]
        jobs: list[tuple[CallJob, Verdict | None]] = []

        async def ask(work: Work) -> Piece:
            job, piece, verdict = await self._call(opened, work, assurance, price_max_ucr, executors)
            jobs.append((job, verdict))
            return piece

        nodes = self._team.discovery.known(opened.hash)
        rates = [served.calls_per_s_milli for node in nodes if (served := node.capability.served_bundle(opened.hash))]
        done = Done(Path(checkpoint) if checkpoint else None, identity_of(opened.hash, assurance, works))
        pieces = await run_batch(manifest, works, done, ask, min((rate for rate in rates if rate), default=0) / 1000)
        rows = tuple(row for piece in pieces for row in rows_of(manifest, piece))
        receipts = tuple(receipt for job, _ in jobs for receipt in job.dossier.receipts)
        verdicts = tuple(verdict for _, verdict in jobs if verdict)
        return Batch(rows, verdicts, receipts, Usage(sum(work.input_tokens for work in works), 0))

    async def manifest(self, bundle: str) -> Manifest:
        """What the publisher says of the bundle: what it takes and gives, under which licence."""
        return (await self._open(bundle)).manifest

    async def nodes(self, bundle: str | None = None, *, wait_s: float = math.inf) -> list[NodeView]:
        """What discovery finds now, for one bundle or all that the trust list names; each node was asked itself.

        Who answers slowly is not waited for longer than `wait_s`, and known the next time.
        """
        names = [bundle] if bundle else self.bundles()
        with trio.move_on_after(wait_s):
            for name in names:
                await self._team.discovery.find(self._hash(name), lambda found: False)
        wanted = {self._hash(name) for name in names}
        known = {self._hash(name): name for name in self.bundles()}
        return [
            self._view(node, known)
            for node in sorted(self._team.discovery.nodes.values(), key=lambda node: node.rtt_ms)
            if any(node.capability.served_bundle(one) for one in wanted)
        ]

    def bundles(self) -> list[str]:
        """The names in the trust list."""
        return list(self._trust.names())

    async def takes_text(self, bundle: str) -> bool:
        """Whether it works on texts, by what is known on this machine; what is not known of yet may well."""
        try:
            manifest = (await self._bundles.open(bundle, ())).manifest
        except FallowError:
            return True
        return GENERATE in manifest.entries or (CALL in manifest.entries and not manifest.inputs)

    def owed_by_owner(self) -> dict[str, int]:
        """Micro-credits that this wallet has promised, by owner's key in hex."""
        return {owner.hex(): owed for owner, owed in self._team.desk.wallet.owed_by_owner().items()}

    def standings(self) -> list[Standing]:
        """What this client's checks say of nodes, the newest first: results in a row that were checked and borne out."""
        return self._team.auditor.history.standings()

    async def looked_back(self) -> int:
        """Everything is looked at that owners found at fault had got past us unchecked, as far as it can be now.

        The number of such results that turned out wrong.
        """
        await self._team.late.idle()
        return len(self._team.late.wrong)

    async def leave(self) -> None:
        """No stream goes on; what they delivered is judged and paid, and what was lost on the way brought again."""
        for stream in self._streams:
            await stream.aclose()
        for stream in self._streams:
            await stream.done.wait()
        await self._team.spots.drain(self._team)
        await self._team.late.idle()
        await self._team.desk.settler.drain()

    async def _text_request(
        self,
        bundle: str,
        prompt: Prompt,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        stop: Sequence[str],
        assurance: str,
        price_max_ucr: int,
        executors: Sequence[str],
    ) -> TextRequest:
        asked = read_assurance(assurance)
        if not 1 <= max_tokens <= OUTPUT_TOKENS_MAX:
            raise Refused(Code.TOO_LARGE, f"max_tokens is from 1 to {OUTPUT_TOKENS_MAX}, not {max_tokens}.")
        if not (0.0 <= temperature <= 10.0 and 0.0 < top_p <= 1.0):
            raise Refused(Code.BAD_CONFIG, "The temperature is from 0 to 10, and top_p above 0 and at most 1.")
        if seed is not None and not 0 <= seed < SEEDS:
            raise Refused(Code.BAD_CONFIG, f"The seed is from 0 to {SEEDS - 1}, not {seed}.")
        if len(stop) > STOP_STRINGS_MAX or not all(stop):
            raise Refused(Code.BAD_CONFIG, f"There may be up to {STOP_STRINGS_MAX} stop strings, none of them empty.")
        opened = await self._open(bundle, GENERATE)
        tokens = opened.tokenizer.prompt(prompt)
        room = opened.manifest.context_tokens_max - len(tokens)
        if room < 1:
            raise Refused(
                Code.INPUT_TOO_LONG,
                f"The prompt has {len(tokens)} tokens; {bundle} takes {opened.manifest.context_tokens_max} with the answer.",
            )
        parameters = Parameters(
            max_tokens=min(max_tokens, room),
            temperature_milli=round(temperature * 1000),
            top_p_ppm=round(top_p * 1_000_000),
            seed=chance().randrange(SEEDS) if seed is None and temperature > 0 else (seed or 0),
        )
        return TextRequest(
            opened, tokens, parameters, tuple(stop), asked.policy, price_max_ucr, _keys(executors), asked.hedge
        )

    async def _call(
        self, opened: ClientBundle, work: Work, assurance: str, price_max_ucr: int, executors: Sequence[str]
    ) -> tuple[CallJob, Piece, Verdict | None]:
        asked = read_assurance(assurance)
        request = CallRequest(opened, work, asked.policy, price_max_ucr, _keys(executors), asked.hedge)
        job = CallJob(self._team, request)
        with one_error():
            return job, *await job.run()

    def _one_input(self, opened: ClientBundle, given: Mapping[str, Given] | str) -> Work:
        if isinstance(given, str):
            return Work((self._text_input(opened, given),))
        return work_of(opened.manifest, [given])

    def _text_input(self, opened: ClientBundle, text: str) -> tuple[int, ...]:
        """Raises `Refused`: `unknown_entry` for a function of arrays, `input_too_long`."""
        if opened.manifest.inputs:
            raise Refused(Code.UNKNOWN_ENTRY, f"{opened.name} is a function of arrays, not of texts: use `call`.")
        sequence = opened.tokenizer.text(text)
        if len(sequence) > (most := opened.manifest.context_tokens_max):
            raise Refused(Code.INPUT_TOO_LONG, f"A text of {len(sequence)} tokens; {opened.name} takes {most}.")
        return sequence

    async def _open(self, name: str, entry: str | None = None) -> ClientBundle:
        """Raises `Refused(unknown_entry)` if the bundle has not this entry."""
        wanted = self._hash(name)
        nodes = self._team.discovery.known(wanted) or await self._team.discovery.find(wanted, bool)
        opened = await self._bundles.open(name, nodes)
        if entry is not None and entry not in opened.manifest.entries:
            offered = ", ".join(opened.manifest.entries)
            raise Refused(Code.UNKNOWN_ENTRY, f"{name} has no entry {entry!r}; it offers {offered}.")
        return opened

    def _hash(self, name: str) -> bytes:
        return cid_hash_untrusted(self._bundles.resolve(name).cid)

    def _view(self, node: Node, known: dict[bytes, str]) -> NodeView:
        network, met = self._team.desk.network, self._team.desk.book.get(node.key) or Met(node.key)
        direct_or_not = "relayed" if network.relayed(node.key) else "direct"
        return NodeView(
            peer_id(node.key),
            node.owner.hex(),
            node.capability.kind,
            node.capability.region,
            node.state,
            node.reasons,
            tuple(known.get(served.bundle, cid(served.bundle)) for served in node.capability.served),
            round(node.rtt_ms, 1),
            node.interactive,
            node.addresses,
            node.jobs_running,
            node.key in self._team.desk.wallet.distrusted,
            node.capability,
            node.connectivity,
            trio.current_time() - node.asked_at,
            all(CIRCUIT in address for address in node.addresses),
            direct_or_not if node.key in network.peers() else "",
            met.tries,
            met.answers,
            met.jobs_done,
            met.jobs_failed,
            len(node.witnesses),
        )


class TextWork(Protocol):
    """A text under way, as `TextJob` is."""

    async def run(self) -> Answer:
        """The finished answer."""

    def abandon(self) -> None:
        """The reader has left."""


class TextStream:
    """Chunks as they come, then `answer`. Iterate it once; left early, `aclose` it, or use it as a context manager."""

    def __init__(self, begin: Callable[[Callable[[Chunk], None]], Awaitable[TextWork]], nursery: trio.Nursery) -> None:
        self._begin = begin
        self._job: TextWork | None = None
        self._left = False
        self._nursery: trio.Nursery | None = nursery
        # Bounded by the answer's own length: one chunk for each token, and rewrites.
        self._send, self._chunks = trio.open_memory_channel[Chunk](8 * OUTPUT_TOKENS_MAX)
        self._answer: Answer | None = None
        self._failure: Exception | None = None
        self.done = trio.Event()
        """Everything is judged and paid."""

    @property
    def answer(self) -> Answer:
        """The finished answer, once the iteration has ended."""
        if self._answer is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._answer

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk. Raises the `FallowError` that says why there is no answer."""
        if self._nursery is not None:
            self._nursery.start_soon(self._work)
            self._nursery = None
        try:
            return await self._chunks.receive()
        except trio.EndOfChannel:
            if self._failure:
                raise self._failure from None
            raise StopAsyncIteration from None

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing more is asked for. What was delivered by then is judged and paid in the background."""
        self._left = True
        if self._job is not None:
            self._job.abandon()
        if self._nursery is not None:  # never begun
            self._nursery = None
            self._send.close()
            self.done.set()
        await trio.lowlevel.checkpoint()

    async def _work(self) -> None:
        with self._send:
            try:
                self._job = await self._begin(self._send.send_nowait)
                if not self._left:
                    self._answer = await self._job.run()
            except Exception as error:  # noqa: BLE001 - a job's own task: its reader gets it, the other jobs go on
                self._failure = ungrouped(error)
            finally:
                self.done.set()


@asynccontextmanager
async def connect(bootstrap: Sequence[str], *, home: Path | str | None = None) -> AsyncIterator[Mesh]:
    """A client that has joined by one of the addresses or, if none of them answers, by nodes that it met before.

    State is kept in `home` (FALLOW_HOME, or ~/.fallow). Raises `NetworkError(bootstrap_unreachable)` if nobody answers,
    `StoreError` if the wallet cannot be read.
    """
    from ..node.network.mesh import open_network

    folder = Path(home or os.environ.get("FALLOW_HOME") or Path.home() / ".fallow")
    key = load_or_create(folder / "keys" / "client")
    trust = TrustList.load(folder)
    with (
        closing(Wallet(folder / "wallet.db", key)) as wallet,
        closing(Book(folder / BOOK, wall_ms)) as book,
        closing(History(folder / HISTORY)) as history,
        closing(open_ledger(folder / FOLDER, key)) as ledger,
    ):
        given, known = list(bootstrap), book.ways_in()
        if not given and not known:
            raise NetworkError(
                Code.BOOTSTRAP_UNREACHABLE, "No bootstrap address was given, and no node was met before."
            )
        rules = profile_rules(wall_ms)
        async with open_network(chance().randbytes(32), [], given, rules, mode="client", known=known) as network:
            settler, judges = Settler(network, wallet.confirmed), frozenset(trust.verifiers)
            trusted = frozenset(trust.owners.values())
            desk = Desk(network, wallet, settler, key, wall_ms, book, judges, trusted=trusted, ledger=ledger)
            for channel in await wallet.take_over(wall_ms()):
                desk.settler.add((book.get(channel.channel.record.payee) or Met(b"")).addresses, channel)
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                discovery = Discovery(network, desk.now_ms, nursery, book)
                experience = Experience(met=book.get)
                bundles = Bundles(folder, trust, network, lambda node: experience.failed(node, trio.current_time()))
                deposits = Deposits(trust.deposits, partial(open_cashu, folder, key))
                auditor, late = Auditor(desk, history, deposits), Late(history)
                nursery.start_soon(deposits.run)
                spots = Spots(auditor, chance())
                team = Team(desk, discovery, experience, chance(), auditor, spots, late)
                gossip = Gossip(
                    network, folder / FAULTS, chance(), lambda proven: wallet.distrusted.add(proven.accused)
                )
                network.serve(EVIDENCE_PROTOCOL, gossip.serve)
                mesh = Mesh(team, bundles, trust, nursery)
                nursery.start_soon(gossip.run)
                nursery.start_soon(spots.run, team)
                nursery.start_soon(late.run, team, bundles, trust.verifiers)
                nursery.start_soon(partial(answer_disputes, desk, trust.verifiers))
                nursery.start_soon(keep_telling, desk)
                nursery.start_soon(discovery.keep_fresh)
                nursery.start_soon(desk.settler.run)
                nursery.start_soon(book.keep, network)
                try:
                    yield mesh
                except Exception as error:  # noqa: BLE001 - the caller's: raised below, without the nursery's group
                    failure = error
                with trio.move_on_after(LEAVE_S):
                    await mesh.leave()
                book.look(network)
                nursery.cancel_scope.cancel()
            if failure:
                raise failure


@contextmanager
def one_error() -> Iterator[None]:
    """What nurseries inside raise leaves without their groups around it: callers know single errors only."""
    try:
        yield
    except ExceptionGroup as group:
        raise ungrouped(group) from group


def ungrouped(error: Exception) -> Exception:
    """The first error in a group of groups; the error itself if it is not one."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _keys(peer_ids: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(peer_key_untrusted, peer_ids))
