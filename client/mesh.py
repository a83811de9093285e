"""`Mesh`: what a client that has joined (`joining.connect`) can ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from ..node.trust import TrustList
from ..protocol.bundle import CALL, GENERATE, Manifest
from ..protocol.checks import Verdict
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.identity import cid_hash_untrusted
from ..protocol.limits import CALL_INPUTS_MAX, PRICE_MAX_UCR
from ..protocol.work import Piece, Work
from ..verifier.compare import numbers_of
from .answers import Answer, Batch, Chunk, Embeddings, NodeView, Outputs, Usage
from .arrays import Given, outputs_of, rows_of, work_of
from .assurance import DEFAULT, read_assurance
from .batch import Done, check_count, identity_of, run_batch
from .bundles import Bundles, ClientBundle
from .draft import TextRequest
from .functions import CallJob
from .history import Standing
from .requesting import Sampling, Terms, call_request, one_input, text_input, text_request
from .stream import TextStream
from .team import Team
from .text import TextJob
from .tokenizer import Prompt
from .ungrouping import one_error
from .views import view_of

ASSURANCE = DEFAULT
"""What is asked for unless the caller says otherwise."""


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
        terms = Terms(read_assurance(assurance), price_max_ucr, executors)
        sampling = Sampling(max_tokens, temperature, top_p, seed, stop)
        request = await self._text_request(bundle, prompt, sampling, terms)
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
            terms = Terms(read_assurance(assurance), price_max_ucr, executors)
            sampling = Sampling(max_tokens, temperature, top_p, seed, stop)
            return TextJob(self._team, await self._text_request(bundle, prompt, sampling, terms), emit)

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
        sequences = tuple(text_input(opened, text) for text in texts)
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
        works = [one_input(opened, each) for each in inputs]
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
            view_of(node, self._team.desk, known)
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
        """No stream goes on; what they delivered is judged and paid, and vouchers lost on the way were brought again."""
        for stream in self._streams:
            await stream.aclose()
        for stream in self._streams:
            await stream.done.wait()
        await self._team.desk.settler.drain()

    async def rest(self) -> None:
        """Nothing goes on beside what was asked: who was due was tried, who is at fault looked back at as far as can be, and
        what was lost on the way has been brought again."""
        await self._team.spots.drain(self._team)
        await self._team.late.idle()
        await self._team.desk.settler.drain()

    async def _text_request(self, bundle: str, prompt: Prompt, sampling: Sampling, terms: Terms) -> TextRequest:
        sampling.check()
        return text_request(await self._open(bundle, GENERATE), prompt, sampling, terms)

    async def _call(
        self, opened: ClientBundle, work: Work, assurance: str, price_max_ucr: int, executors: Sequence[str]
    ) -> tuple[CallJob, Piece, Verdict | None]:
        terms = Terms(read_assurance(assurance), price_max_ucr, executors)
        job = CallJob(self._team, call_request(opened, work, terms))
        with one_error():
            return job, *await job.run()

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
