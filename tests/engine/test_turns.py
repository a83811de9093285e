"""Jobs side by side: what batches, neighbours and kept prefixes change about an answer (nothing), and turns about its order."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fallow.node.engine import device
from fallow.node.engine.entries import Fill, Judge, Next, Step, Steps, run_entry
from fallow.node.engine.kept import Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.prefixes import PREFIXES_MAX, Prefix, Prefixes
from fallow.node.engine.programs import Model, load
from fallow.node.engine.sequences import Batch, Line
from fallow.node.engine.slots import Isolation
from fallow.node.engine.turns import Task, Turns
from fallow.protocol.errors import FallowError
from fallow.protocol.work import Parameters, Piece, Work

from .conftest import Tiny

PROMPT = tuple(range(40, 85))
PROMPTS = tuple(3 + (7 * index * index + 11 * index) % 200 for index in range(256))
SEEDED = Parameters(24, 900, 900_000, seed=2**40 + 7)
A, B = b"a" * 32, b"b" * 32


def loaded(tiny: Tiny, cid: str) -> Model:
    """All of it, as it was compiled when it was built."""
    model = load(tiny.store.open(cid), own_grant(Kept(tiny.store.compile_cache)))
    while model.load_next():
        pass
    return model


@pytest.fixture(scope="module")
def chat(tiny: Tiny) -> Model:
    device.configure(tiny.store.compile_cache)
    return loaded(tiny, tiny.chat)


class Asked:
    """A job and what came of it."""

    def __init__(
        self, model: Model, work: Work, parameters: Parameters = SEEDED, *, client: bytes = A, entry: str = "generate"
    ):
        self.pieces: list[Piece] = []
        self.ran: list[frozenset[str]] = []
        """Variants of the programs behind each piece."""
        self.ended = False
        self.error: FallowError | None = None
        steps = run_entry(model.manifest, entry, parameters, work)
        self.task = Task(client, model, parameters, steps, self._give, self._fail, credit=10_000)

    def _give(self, step: Step, ran: frozenset[str]) -> None:
        self.pieces.append(step.piece)
        self.ran.append(ran)
        self.ended = bool(step.end)

    def _fail(self, error: FallowError) -> None:
        self.error = error

    @property
    def said(self) -> list[tuple[int, int]]:
        """Each token and its value in micro-nats."""
        return [(piece.tokens[0], piece.values_micro[0]) for piece in self.pieces]


def finish(turns: Turns, *jobs: Asked) -> None:
    for job in jobs:
        turns.add(job.task)
    while len(turns):
        turns.run()
    assert all(job.ended for job in jobs)


def alone(model: Model, prompt: tuple[int, ...], parameters: Parameters = SEEDED) -> list[tuple[int, int]]:
    job = Asked(model, Work((prompt,)), parameters)
    finish(Turns([model], prefix_bytes=0), job)
    return job.said


def begun(model: Model, prompt: tuple[int, ...], parameters: Parameters) -> tuple[Line, int]:
    """A line with the prompt in its cache, and the token that follows."""
    task = Asked(model, Work((prompt,)), replace(parameters, max_tokens=2)).task
    turns = Turns([model], prefix_bytes=0)
    turns.add(task)
    while not isinstance(task.request, Next):
        turns.run()
    assert task.line is not None
    return task.line, task.request.token


def test_neighbours_and_slot_do_not_change_a_bit(chat: Model) -> None:
    """The same program, another slot and other company: equal to the last bit."""
    prompts = [PROMPT, PROMPT[:5], PROMPT[::-1], (7,)]

    def together(order: list[int], others: Parameters) -> list[tuple[int, float]]:
        begins = {i: begun(chat, prompts[i], SEEDED if i == 0 else others) for i in order}
        batch = Batch(chat, slots=4, context=64)
        for i in order:
            batch.place(begins[i][0])
        tokens, said = dict(begins.values()), []
        for _ in range(16):
            following = batch.step(tokens)
            said.append(following[begins[0][0]])
            tokens = {line: token for line, (token, _) in following.items()}
        return said

    first = together([0, 1, 2, 3], Parameters())
    assert together([1, 0, 3, 2], Parameters()) == first
    assert together([3, 2, 1, 0], Parameters(0, 1500, 500_000, seed=3)) == first
    assert together([0], Parameters()) == first


def test_batches_of_every_width_say_the_same_within_the_tolerance(chat: Model) -> None:
    single = alone(chat, PROMPT)
    jobs = [Asked(chat, Work((PROMPT,))) for _ in range(3)]
    finish(Turns([chat], prefix_bytes=0), *jobs)
    for job in jobs:
        assert [token for token, _ in job.said] == [token for token, _ in single]
        apart = np.subtract([value for _, value in job.said], [value for _, value in single])
        assert np.abs(apart).max() <= 100


def test_jobs_join_leave_and_outgrow_a_batch_at_any_step(chat: Model) -> None:
    """From a lone short text to a full batch over the long context and back, nobody's text changes."""
    wanted = {
        prompt: alone(chat, prompt, Parameters(80)) for prompt in ((9,), PROMPT, PROMPT[:20], (12, 13), (60,) * 33)
    }
    turns, jobs = Turns([chat], prefix_bytes=0), []
    for steps, prompt in zip((3, 7, 1, 30, 0), wanted, strict=True):
        jobs.append((prompt, Asked(chat, Work((prompt,)), Parameters(80))))
        turns.add(jobs[-1][1].task)
        for _ in range(steps):
            turns.run()
    while len(turns):
        turns.run()
    for prompt, job in jobs:
        assert [token for token, _ in job.said] == [token for token, _ in wanted[prompt]]


@pytest.mark.spec("J-37")
def test_each_piece_says_which_programs_ran_for_it_as_others_come_and_go(chat: Model) -> None:
    narrow, wide, long = {"1x64"}, {"4x64"}, {"4x256"}
    turns, first = Turns([chat], prefix_bytes=0), Asked(chat, Work((PROMPT[:9],)), Parameters(30))
    turns.add(first.task)
    while len(first.pieces) < 4:
        turns.run()
    second = Asked(chat, Work((PROMPT[:5],)), Parameters(3))
    turns.add(second.task)
    while not second.ended:
        turns.run()
    alone_again = len(first.pieces)
    while len(first.pieces) < alone_again + 3:
        turns.run()
    third = Asked(chat, Work(((50,) * 100,)), Parameters(4))
    turns.add(third.task)
    while len(turns):
        turns.run()
    assert first.ran[:4] == [narrow] * 4
    assert second.ran == [narrow, wide, wide]  # the first is read, not written
    assert first.ran.count(frozenset(wide)) >= 2
    assert first.ran[alone_again + 1 : alone_again + 3] == [narrow] * 2
    assert third.ran == [{"1x256"}, *[long] * 3]
    assert first.ran.count(frozenset(long)) >= 2


def test_a_piece_of_many_runs_names_all_of_their_programs(tiny: Tiny) -> None:
    model = loaded(tiny, tiny.embed)
    slots = [program.program.slots for program in model.programs("call")]
    many = Asked(model, Work(tuple((first, 5, 6) for first in range(max(slots) + 1))), Parameters(), entry="call")
    finish(Turns([model]), many)
    assert {int(each.partition("x")[0]) for each in many.ran[0]} == {1, max(slots)}
    variants = model.numerics_class.rpartition("/")[2].split("+")
    assert many.ran[0] <= set(variants)
    assert len(variants) == len(set(variants))


def test_functions_of_one_variant_are_equal_to_the_bit_whoever_stands_beside_them(tiny: Tiny) -> None:
    model = loaded(tiny, tiny.embed)
    width = max(program.program.slots for program in model.programs("call"))
    row = (9, 5, 6)
    seen = set()
    for place in range(width):
        rows = [(first, 7) for first in range(width)]
        rows[place] = row
        job = Asked(model, Work(tuple(rows)), Parameters(), entry="call")
        finish(Turns([model]), job)
        assert len(job.ran[0]) == 1
        seen.add(np.frombuffer(job.pieces[0].tensor, "<f4").reshape(job.pieces[0].shape)[place].tobytes())
    assert len(seen) == 1


def test_a_cancelled_job_frees_its_slot_at_once_and_harms_nobody(chat: Model) -> None:
    stays, goes = Asked(chat, Work((PROMPT,))), Asked(chat, Work((PROMPT[:9],)), Parameters(200))
    turns = Turns([chat], prefix_bytes=0)
    for job in (stays, goes):
        turns.add(job.task)
    for _ in range(8):
        turns.run()
    turns.remove(goes.task)
    assert len(turns) == 1
    finish(turns)
    assert [token for token, _ in stays.said] == [token for token, _ in alone(chat, PROMPT)]
    assert not goes.ended


def test_a_job_without_credit_keeps_its_place_while_others_go_on(chat: Model) -> None:
    waits, goes = Asked(chat, Work((PROMPT,))), Asked(chat, Work((PROMPT[:9],)))
    waits.task.credit = 4
    turns = Turns([chat], prefix_bytes=0)
    turns.add(waits.task)
    turns.add(goes.task)
    while turns.waiting:
        turns.run()
    assert (len(waits.pieces), goes.ended) == (4, True)
    waits.task.credit = 100
    finish(turns)
    assert [token for token, _ in waits.said] == [token for token, _ in alone(chat, PROMPT)]


class Counted:
    """How many positions were read by the programs of a role."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
        self.positions = 0
        for program in model.programs(role):
            run = program.run

            def counting(*arguments: object, run: object = run, length: int = program.length) -> object:
                self.positions += length
                return run(*arguments)  # type: ignore[operator]  # the program's own

            monkeypatch.setattr(program, "run", counting)


def test_a_conversation_s_next_turn_reads_only_what_is_new(chat: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns([chat])
    first = Asked(chat, Work(((50,) * 100,)))
    finish(turns, first)
    text = (50,) * 100 + tuple(token for token, _ in first.said)
    read = Counted(chat, monkeypatch, "prefill")
    second = Asked(chat, Work(((*text, 33, 34),)))
    finish(turns, second)
    assert read.positions == 32
    assert [token for token, _ in second.said] == [token for token, _ in alone(chat, (*text, 33, 34))]


def test_a_prefix_serves_forks_and_is_another_client_s_never(chat: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns([chat])
    finish(turns, Asked(chat, Work(((50,) * 100,))))
    for tail, client, positions in (((1, 2), A, 32), ((3, 4), A, 32), ((5, 6), B, 128)):
        with monkeypatch.context() as patch:
            read = Counted(chat, patch, "prefill")
            job = Asked(chat, Work(((50,) * 98 + tail,)), client=client)
            finish(turns, job)
            assert read.positions == positions
        assert [token for token, _ in job.said] == [token for token, _ in alone(chat, (50,) * 98 + tail)]


@pytest.mark.parametrize("entry", ["generate", "score"])
def test_nothing_in_an_answer_tells_whether_another_client_asked_the_same(chat: Model, entry: str) -> None:
    text = (50,) * 100
    work = Work((text,)) if entry == "generate" else Work((text,), claimed=20)

    def answered(turns: Turns) -> tuple[list[Piece], list[frozenset[str]], int]:
        job, runs = Asked(chat, work, Parameters(8), client=B, entry=entry), 0
        turns.add(job.task)
        while len(turns):
            turns.run()
            runs += 1
        return job.pieces, job.ran, runs

    kept = Turns([chat])
    finish(kept, Asked(chat, Work((text,)), Parameters(8), client=A), Asked(chat, work, Parameters(8), entry=entry))
    assert kept.prefixes[chat].length_bytes > 0
    assert answered(kept) == answered(Turns([chat]))


def test_windows_of_one_text_are_judged_without_reading_it_again(chat: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [token for token, _ in alone(chat, PROMPT, Parameters(96))]
    turns, judged = Turns([chat]), []
    read = Counted(chat, monkeypatch, "score")
    for end in (32, 64, 96):
        job = Asked(chat, Work(((*PROMPT, *said[:end]),), claimed=32), Parameters(), entry="score")
        finish(turns, job)
        judged += job.pieces[0].values_micro
    assert read.positions == 3 * 32
    whole = Asked(chat, Work(((*PROMPT, *said),), claimed=96), Parameters(), entry="score")
    finish(Turns([chat], prefix_bytes=0), whole)
    assert np.abs(np.subtract(judged, whole.pieces[0].values_micro)).max() <= 100


@pytest.mark.parametrize("kept_bytes", [0, 2**26])
@pytest.mark.parametrize("asked", [Fill(PROMPT), Judge(PROMPT, 9)], ids=["fill", "judge"])
def test_what_begins_a_sequence_gives_the_same_when_it_is_asked_again(
    chat: Model, kept_bytes: int, asked: Fill | Judge
) -> None:
    replies: list[object] = []

    def steps() -> Steps:
        for _ in range(3):
            replies.append((yield asked))
        yield Step(Piece(tokens=(0,), values_micro=(0,)), "length")

    job = Asked(chat, Work((PROMPT,)))
    job.task.steps = steps()
    finish(Turns([chat], prefix_bytes=kept_bytes), job)
    first, *again = [np.asarray(each) for each in replies]
    for reply in again:
        assert reply.shape == first.shape
        assert np.allclose(reply, first, atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "claimed"), [(33, 32), (45, 32), (64, 32), (90, 40), (159, 96), (200, 56), (231, 8), (224, 32)]
)
def test_a_claim_is_scored_in_as_few_chunks_as_hold_it(
    chat: Model, prompt: int, claimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it begins. What is found is what chunks on the grid find: to the bit where they lie there anyway."""
    text = PROMPTS[:prompt] + tuple(token for token, _ in alone(chat, PROMPTS[:prompt], Parameters(claimed)))

    def judged() -> Piece:
        job = Asked(chat, Work((text,), claimed=claimed), Parameters(), entry="score")
        finish(Turns([chat]), job)
        return job.pieces[0]

    with monkeypatch.context() as patch:
        read = Counted(chat, patch, "score")
        found = judged()
    assert read.positions == -(-claimed // 32) * 32
    assert max(found.gaps_micro) <= chat.manifest.tolerance.gap_micro
    monkeypatch.setattr(Model, "begin", lambda model, role, at, end, context: at - at % 32)
    on_the_grid = judged()
    assert np.abs(np.subtract(found.values_micro, on_the_grid.values_micro)).max() <= 100
    if prompt % 32 == 1:
        assert found == on_the_grid


def test_what_is_kept_to_its_end_is_not_read_again(chat: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that saves a chunk: 23 kept tokens behind the last place on the grid, and 20 new ones."""
    turns = Turns([chat])
    first = Asked(chat, Work((PROMPTS[:96],)), Parameters(24))
    finish(turns, first)
    text = (*PROMPTS[:96], *(token for token, _ in first.said))
    read = Counted(chat, monkeypatch, "prefill")
    second = Asked(chat, Work(((*text, *PROMPTS[:20]),)))
    finish(turns, second)
    assert read.positions == 32
    assert [token for token, _ in second.said] == [token for token, _ in alone(chat, (*text, *PROMPTS[:20]))]


def test_kept_prefixes_stay_within_their_bound(chat: Model) -> None:
    bundle_state = sum(int(np.prod(each.shape_in(256))) * 4 for each in chat.manifest.state)
    turns = Turns([chat], prefix_bytes=2 * bundle_state)
    for first in range(6):
        finish(turns, Asked(chat, Work(((first, *PROMPT),)), Parameters(48)))
    (prefixes,) = turns.prefixes.values()
    assert prefixes.length_bytes <= 2 * bundle_state


def test_prefixes_without_any_state_are_bounded_in_number() -> None:
    prefixes = Prefixes(2**20)
    for first in range(PREFIXES_MAX + 3):
        prefixes.keep(A, Prefix((first, *PROMPT), [], 128))
    assert prefixes.find(A, (2, *PROMPT)) is None
    assert prefixes.find(A, (3, *PROMPT)) is not None
    assert prefixes.find(B, (4, *PROMPT)) is None


JOBS_AFTER_REHEARSAL = """
import sys
from pathlib import Path
from fallow.node.engine import device
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.entries import run_entry
from fallow.node.engine.kept import Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.programs import load
from fallow.node.engine.sequences import rehearsal
from fallow.node.engine.turns import Task, Turns
from fallow.protocol.work import Parameters, Work

store, cache, client = BundleStore(Path(sys.argv[1])), Path(sys.argv[3]), bytes(32)
device.configure(cache)
model = load(store.open(sys.argv[2]), own_grant(Kept(store.compile_cache)))
while model.load_next():
    pass
for _ in rehearsal(model):
    pass
before, turns, ask = set(cache.iterdir()), Turns([model]), Parameters(max_tokens=40)
for _ in range(2):  # the second time from what is kept of the first
    for length in (20, 45, 130, 85):
        steps = run_entry(model.manifest, "generate", ask, Work((tuple(range(4, 4 + length)),)))
        turns.add(Task(client, model, ask, steps, lambda step, ran: None, print, credit=1000))
    while len(turns):
        turns.run()
print(len(before), *(path.name for path in set(cache.iterdir()) - before))
"""


def test_nothing_that_is_done_to_states_is_compiled_after_the_rehearsal(tiny: Tiny, tmp_path: Path) -> None:
    """In a process of its own: this one has compiled it long since."""
    command = [sys.executable, "-c", JOBS_AFTER_REHEARSAL, str(tiny.store.root), tiny.chat, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    compiled, *later = ended.stdout.split()
    assert int(compiled) > 10
    assert later == []


def test_a_long_prompt_holds_up_the_others_by_one_short_chunk_a_step(chat: Model) -> None:
    writing, reading = (
        Asked(chat, Work((PROMPT[:4],)), Parameters(40)),
        Asked(chat, Work(((70,) * 200,)), Parameters(1)),
    )
    turns = Turns([chat], prefix_bytes=0)
    turns.add(writing.task)
    for _ in range(3):
        turns.run()
    before = len(writing.pieces)
    turns.add(reading.task)
    runs = 0
    while not reading.ended:
        turns.run()
        runs += 1
    assert len(writing.pieces) - before >= runs // 2


def test_clients_take_turns_whoever_has_more_jobs(chat: Model) -> None:
    order: list[str] = []
    turns = Turns([chat], prefix_bytes=0)
    jobs = [Asked(chat, Work(((first, *PROMPT[:30]),)), Parameters(1), client=A) for first in range(4)]
    jobs.append(Asked(chat, Work(((99, *PROMPT[:30]),)), Parameters(1), client=B))
    for job in jobs:
        turns.add(job.task)
    while len(turns):
        turns.run()
        order += [str(index) for index, job in enumerate(jobs) if job.ended and str(index) not in order]
    assert order.index("4") <= 1


def test_clients_share_a_run_only_where_slots_are_proven_apart(chat: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def widest(model: Model) -> int:
        used: set[int] = set()
        with monkeypatch.context() as patch:
            for program in model.programs("decode"):
                run = program.run

                def noting(*arguments: object, run: object = run, slots: int = program.program.slots) -> object:
                    used.add(slots)
                    return run(*arguments)  # type: ignore[operator]  # the program's own

                patch.setattr(program, "run", noting)
            finish(Turns([model], 0), *(Asked(model, Work((PROMPT[:4],)), client=client) for client in (A, B)))
        return max(used)

    assert chat.shared
    assert widest(chat) == 4
    for program in chat.programs("decode"):
        loaded = program.load()
        monkeypatch.setattr(program, "_loaded", replace(loaded, isolation=Isolation(False, "for this test")))
    assert not chat.shared
    assert widest(chat) == 1


def test_a_function_s_inputs_are_run_several_at_a_time(tiny: Tiny) -> None:
    model = loaded(tiny, tiny.embed)
    rows = tuple((first, 5, 6) for first in range(7))
    many = Asked(model, Work(rows), Parameters(), entry="call")
    finish(Turns([model]), many)
    one = [Asked(model, Work((row,)), Parameters(), entry="call") for row in rows]
    for job in one:
        finish(Turns([model]), job)
    together = np.frombuffer(many.pieces[0].tensor, "<f4").reshape(many.pieces[0].shape)
    apart = np.stack([np.frombuffer(job.pieces[0].tensor, "<f4") for job in one])
    np.testing.assert_allclose(together, apart, atol=1e-6)
