"""Simulated histories of one client among nodes, some of which cheat: the policy code is the client's own.

Real: the choice of executor and checkers (`client.scheduler.choose`), the record (`client.history`), the rate and the draw
(`verifier.audits`, `protocol.policy`), the judgement (`verifier.quorum.judge_window`), what is held until when
(`protocol.holding`). Made up: the windows' figures, and time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from fallow.client.history import History, Subject
from fallow.client.nodes import Node
from fallow.client.ordering import HELD_PPM, HOLD_MS
from fallow.client.scheduler import Experience, Need, choose
from fallow.client.wallet import CHANNEL_MS
from fallow.node.book import Met
from fallow.protocol.bundle import Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation, Outcome
from fallow.protocol.envelope import Signed
from fallow.protocol.holding import Parts, release_of, total_ucr, unreleased, with_more
from fallow.protocol.identity import CHECKER, EXECUTOR, Mandate, WorkerKey
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.policy import Policy, drawn_at
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.receipts import OPEN, Receipt
from fallow.verifier.audits import FLOOR_PPM, MILLION, NEWCOMER, audit_ppm, spot_ppm
from fallow.verifier.quorum import Check, Judgement, Member, Standings, Window, judge_window

BUNDLE, CLIENT, ZEROS = b"\x09" * 32, b"\x08" * 32, bytes(32)
TOLERANCE = Tolerance(1_000, 1_000, 500, 0, 0, (), "-")
POLICY = Policy.parse(f"adaptive:{FLOOR_PPM}")
TOKEN_UCR = 4
"""Of a token that is written, by the default prices."""
CUT_TOKENS = WINDOW_TOKENS * 7 // 8
"""Of a window that is cut, those that are left out of it."""
LEFT_TOKENS = 4
"""Of a text that is given back: enough to be paid something (`testnet.adversaries.deserter`)."""
HELD = HELD_PPM / 1_000_000
TRUE: tuple[int, ...] = (-1_000,) * 4
WRONG: tuple[int, ...] = (-60_000,) * 4
"""Proof values of a window, fewer than a real one has: only whether they agree matters here."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """How a dishonest owner behaves. What it knows is what it is asked: never who checks."""

    name: str
    lies: Callable[[int, Random], bool]
    """Whether it lies in its next window, after so many accepted ones."""
    friends: bool = False
    """Dishonest checkers confirm whatever dishonest executors say."""
    agrees: bool = False
    """As a checker it says yes to everything, whatever it runs."""
    objects: bool = False
    """As a checker it has other figures than everybody."""
    stops: bool = False
    """Its lie is to end the text there, after a few tokens of the window."""
    leaves: bool = False
    """It writes nothing false: what it would lie in it gives back after a few tokens, as if its owner wanted the machine."""


@dataclass
class Told:
    """What came of one history, of its dishonest owners together."""

    wrong: int = 0
    """Windows in which they lied."""
    accepted: int = 0
    """Of these, those that stand at the end of the history: not found at once, nor when audits went backwards."""
    delivered: int = 0
    """Of these, those that nothing was said of when they came: not drawn, or confirmed by friends."""
    answers: int = 0
    answers_wrong: int = 0
    """Answers with a lie in them, and those of them that were taken as good when they came."""
    paid_ucr: int = 0
    """For wrong windows that stand, or that were paid before they were found."""
    forfeited_ucr: int = 0
    caught_after: list[int] = field(default_factory=list)
    """Of each that was caught as executor, answers from the first with a lie in it until then."""
    checks_until_caught: list[int] = field(default_factory=list)
    """Of each that was caught as a checker, checks that it was asked for."""
    honest_blamed: int = 0
    """Honest nodes against whom a fault was found."""
    left: list[int] = field(default_factory=list)
    """Of each answer that was given back, how many its client had had before."""
    windows: int = 0
    checks: Counter[int] = field(default_factory=Counter)
    """By the place of the window in its answer."""
    spots: int = 0


@dataclass
class _Owner:
    node: Node
    dishonest: bool
    served: int = 0
    held: Parts = ()
    channel_ends_ms: int = 0
    """Then a new one begins: nothing of the old one can be forfeited for what is done on it."""
    lied_answers: int = 0
    lied: bool = False
    asked: int = 0
    answers: int = 0
    settled: int = 0
    """Wrong windows that several friends have confirmed: nobody looks at them again."""
    rests: list[tuple[bool, _Owner]] = field(default_factory=list)
    """Windows that rest on this owner's word alone, taken unchecked or confirmed by it: whether wrong, and who wrote it."""


class World:
    """A client, `nodes` nodes of as many owners, of which the first `dishonest` cheat. An honest text ends by itself, `spare`
    tokens before it would have to."""

    def __init__(
        self, cheat: Cheat, seed: int, nodes: int, dishonest: int, windows: int, price_ucr: int, spare: int = 0
    ) -> None:
        self._cheat, self._windows, self._price, self._spare = cheat, windows, price_ucr, spare
        self._random = Random(seed)
        self._history = History()
        self._met: dict[bytes, Met] = {}
        """Counted where somebody leaves; of who never does, all know the same."""
        self._experience = Experience(met=self._met.get)
        self._distrusted: set[bytes] = set()
        made = [_node(number) for number in range(nodes)]
        self._owners = {node.key: _Owner(node, number < dishonest) for number, node in enumerate(made)}
        self._nodes = made
        self._now_ms = self._asked = 0
        self.told = Told()

    def answer(self, gap_ms: int) -> None:
        """One more answer is asked for, `gap_ms` after the last."""
        self._now_ms += gap_ms
        need = Need(BUNDLE, "generate", 1, 40, 200, 10**9, proven=self._history.proven(BUNDLE, NEWCOMER))
        owner, lied, stands = self._writer(need), 0, 0
        for place in range(self._windows):
            wrong = owner.dishonest and not self._cheat.leaves and self._cheat.lies(owner.served, self._random)
            cut = wrong and self._cheat.stops
            left = self._windows - 1 - place
            unwritten = WINDOW_TOKENS * left + self._spare if cut or not left else 0
            verdict = self._window(owner, wrong, place, unwritten + CUT_TOKENS * cut, cut)
            lied += wrong
            owner.lied |= wrong
            if verdict is Outcome.REJECTED:
                stands = 0  # found, and looked back: what was accepted of this answer is withdrawn with it
                if owner.dishonest:
                    self.told.caught_after.append(owner.lied_answers + 1)
                break
            stands += wrong
            owner.served += 1
            if cut:
                break
        owner.lied_answers += owner.lied
        owner.answers += 1
        self.told.answers += bool(lied)
        self.told.answers_wrong += bool(stands)
        self.told.wrong += lied
        self.told.delivered += stands

    def _writer(self, need: Need) -> _Owner:
        """Who writes the text, after those who have given it back."""
        owner = self._chosen(need)
        while owner.dishonest and self._cheat.leaves and self._cheat.lies(owner.answers, self._random):
            self._experience.left(owner.node.key, LEFT_TOKENS, need.planned_tokens, self._now_ms / 1000)
            self._worked(owner, well=False)
            owner.answers += 1
            self.told.left.append(self._asked)
            start_ucr = need.input_tokens * LEFT_TOKENS // need.planned_tokens
            self.told.paid_ucr += start_ucr + LEFT_TOKENS * TOKEN_UCR
            need = replace(need, avoid_nodes=need.avoid_nodes | {owner.node.key})
            owner = self._chosen(need)
        self._worked(owner, well=True)
        self._asked += 1
        return owner

    def _chosen(self, need: Need) -> _Owner:
        now_s = self._now_ms / 1000
        node = choose(self._nodes, need, self._experience, self._distrusted, (), now_s, self._random)
        assert node is not None
        return self._owners[node.key]

    def _worked(self, owner: _Owner, *, well: bool) -> None:
        """As the peer book counts it."""
        if self._cheat.leaves:
            key = owner.node.key
            met = self._met.get(key, Met(key))
            self._met[key] = replace(met, jobs_done=met.jobs_done + well, jobs_failed=met.jobs_failed + (not well))

    @property
    def over(self) -> bool:
        """Everybody who cheats was found out: nothing more can come of it."""
        return any(o.dishonest for o in self._owners.values()) and all(
            key in self._distrusted for key, o in self._owners.items() if o.dishonest
        )

    def finish(self) -> Told:
        """What stands at the end."""
        self.told.accepted = sum(
            owner.settled + sum(wrong for wrong, _ in owner.rests) for owner in self._owners.values()
        )
        return self.told

    def answers_by_node(self) -> list[int]:
        """How many each node has had."""
        return [owner.answers for owner in self._owners.values()]

    def _window(self, owner: _Owner, wrong: bool, place: int, unwritten: int, cut: bool) -> Outcome:
        """`unwritten`: tokens that the reader might have had after it. `cut`: it has a few tokens, and costs as little."""
        self.told.windows += 1
        price = self._price // 8 if cut else self._price
        receipt = self._random.randbytes(32)
        if self._now_ms >= owner.channel_ends_ms:
            owner.held, owner.channel_ends_ms = (), self._now_ms + CHANNEL_MS
        owner.held = unreleased(owner.held, self._now_ms)
        subject = _subject(owner.node)
        valid = self._history.valid(subject)
        rate = audit_ppm(valid, price, total_ucr(owner.held), FLOOR_PPM, unwritten=unwritten, token_ucr=TOKEN_UCR)
        if not drawn_at(rate, ZEROS, receipt):
            owner.rests.append((wrong, owner))
            self._pay(owner, wrong, price)
            return Outcome.ACCEPTED
        judgement, checkers = self._check(owner, wrong, receipt)
        self.told.checks[place] += len(checkers)
        for checker in checkers:
            objection = judgement.fault(checker.node.key)
            if objection is None and checker.node.key not in judgement.reasons:
                self._history.passed(_subject(checker.node), CHECKER, self._now_ms)
                self._spot(checker)
            elif objection and judgement.outcome is not Outcome.INCONCLUSIVE:
                self._fault(checker, as_checker=True)
        if judgement.outcome is Outcome.ACCEPTED:
            self._history.passed(subject, EXECUTOR, self._now_ms)
            self._rest(owner, wrong, judgement, checkers)
            self._pay(owner, wrong, price)
        elif judgement.outcome is Outcome.REJECTED:
            self._fault(owner, as_checker=False)
        return judgement.outcome

    def _check(self, owner: _Owner, wrong: bool, receipt: bytes) -> tuple[Judgement, list[_Owner]]:
        """As `client.checking.check_window`: one checker, and two more if that leaves it open."""
        anchors, checkers = self._history.anchors(), list[_Owner]()
        values = WRONG if wrong else TRUE
        claim = _receipt(owner.node.key, values, receipt)
        member = Member(owner.node.key, owner.node.owner)
        need = Need(
            BUNDLE, "score", 1, 100, 4, 10**9, CHECKER, frozenset({owner.node.key}), member.keys,
            wished_owners=anchors if owner.node.owner not in anchors else frozenset(),
        )  # fmt: skip
        who = Standings(frozenset({CLIENT}), anchors)
        judgement = judge_window(Window(claim, member, (), MILLION), POLICY, TOLERANCE, who)
        for count in (1, 2):
            if judgement.outcome is not Outcome.INCONCLUSIVE:
                break
            for _ in range(count):
                asked = need.avoid_nodes | {checker.node.key for checker in checkers}
                wished = need.wished_owners if len(checkers) in (0, 1) else frozenset()
                one = replace(need, avoid_nodes=asked, wished_owners=wished)
                node = choose(self._nodes, one, self._experience, self._distrusted, (), 0.0, self._random)
                if node is not None:
                    checkers.append(self._owners[node.key])
            checks = tuple(self._attested(checker, owner, values, claim) for checker in checkers)
            judgement = judge_window(Window(claim, member, checks, MILLION), POLICY, TOLERANCE, who)
        for checker in checkers:
            checker.asked += 1
        return judgement, checkers

    def _attested(self, checker: _Owner, owner: _Owner, values: tuple[int, ...], claim: Signed[Receipt]) -> Check:
        found = TRUE
        if checker.dishonest and self._cheat.friends and owner.dishonest:
            found = values
        elif checker.dishonest and self._cheat.objects:
            found = tuple(value - 50_000 - self._random.randrange(10_000) for value in TRUE)
        record = Attestation(claim.id, ZEROS, TEACHER_FORCED, found, (0,) * 4, (0,) * 4, "float32")
        signed = Signed(record, checker.node.key, self._random.randbytes(16))
        return Check(Member(checker.node.key, checker.node.owner), 4, signed)

    def _spot(self, checker: _Owner) -> None:
        """As `client.spotting`: a transcript with a token changed, of which only an honest run shows the gap. The window was
        true, and the two who are asked to look at it again say so."""
        valid = self._history.valid(_subject(checker.node), CHECKER)
        if self._random.randrange(MILLION) >= spot_ppm(valid):
            return
        self.told.spots += 1
        checker.asked += 1
        if checker.dishonest and self._cheat.agrees:
            self._fault(checker, as_checker=True)
        else:
            self._history.passed(_subject(checker.node), CHECKER, self._now_ms)

    def _fault(self, owner: _Owner, *, as_checker: bool) -> None:
        self._history.failed(owner.node.owner, owner.node.key, "found out", self._now_ms)
        self._distrusted.add(owner.node.key)
        if not owner.dishonest:
            self.told.honest_blamed += 1
            return
        if as_checker:
            self.told.checks_until_caught.append(owner.asked)
        self.told.forfeited_ucr += total_ucr(owner.held)
        owner.held = ()
        looked_at, owner.rests = owner.rests, []
        for writer in [writer for wrong, writer in looked_at if wrong]:  # by whoever is drawn for each
            judgement, checkers = self._check(writer, True, self._random.randbytes(32))
            if judgement.outcome is Outcome.ACCEPTED:
                self._rest(writer, True, judgement, checkers)
            elif judgement.outcome is Outcome.REJECTED and writer.node.key not in self._distrusted:
                self._fault(writer, as_checker=False)
            elif judgement.outcome is Outcome.INCONCLUSIVE:
                owner.rests.append((True, writer))

    def _rest(self, writer: _Owner, wrong: bool, judgement: Judgement, checkers: list[_Owner]) -> None:
        """Accepted: it rests on the one checker who confirmed it, or on several."""
        believed = [one for one in checkers if one.node.key not in judgement.reasons]
        if len(believed) == 1:
            believed[0].rests.append((wrong, writer))
        else:
            writer.settled += wrong

    def _pay(self, owner: _Owner, wrong: bool, price_ucr: int) -> None:
        release_ms = release_of(owner.held, self._now_ms + HOLD_MS, self._now_ms)
        owner.held = with_more(owner.held, round(HELD * price_ucr), release_ms)
        self.told.paid_ucr += price_ucr * wrong


def refuted(random: Random, rate_ppm: int, colluding: float) -> bool:
    """Whether a wrong window is drawn at this rate, and refuted, where each checker confirms it with this chance."""
    receipt = random.randbytes(32)
    if not drawn_at(rate_ppm, ZEROS, receipt):
        return False
    executor = Member(b"e" * 32, b"E" * 32)
    claim = _receipt(executor.node, WRONG, receipt)
    checks: tuple[Check, ...] = ()
    for count in (1, 2):
        for _ in range(count):
            node = random.randbytes(32)
            found = WRONG if random.random() < colluding else TRUE
            record = Attestation(claim.id, ZEROS, TEACHER_FORCED, found, (0,) * 4, (0,) * 4, "float32")
            checks += (Check(Member(node, node[::-1]), 4, Signed(record, node, random.randbytes(16))),)
        judgement = judge_window(Window(claim, executor, checks, MILLION), POLICY, TOLERANCE)
        if judgement.outcome is not Outcome.INCONCLUSIVE:
            break
    return judgement.outcome is Outcome.REJECTED


def _subject(node: Node) -> Subject:
    return Subject(node.key, node.owner, BUNDLE, "float32")


def _receipt(node: bytes, values: tuple[int, ...], envelope: bytes) -> Signed[Receipt]:
    return Signed(Receipt(ZEROS, 0, None, 0, 4, ZEROS, values, "float32", 1, OPEN), node, envelope)


def _node(number: int) -> Node:
    key, owner = bytes([number + 1]) * 32, bytes([number + 1, 1]) * 16
    served = ServedBundle(BUNDLE, ("generate", "score"), "float32", 400_000, 30_000, 0)
    prices = (Price(BUNDLE, "generate", 0, 1, 4, 0), Price(BUNDLE, "score", 0, 1, 0, 1))
    roles = (EXECUTOR, CHECKER)
    return Node(
        key,
        Signed(Mandate(key, owner, roles, 1, 0, 1, None), owner, b""),
        CapabilityProfile(key, ZEROS, 1, 0, 1, "host", "", roles, (), (served,), prices, 4, 500_000, HOLD_MS, ()),
        ConnectivityProfile(key, 1, 0, 1, (), (), None, 0, None, None, None, None, None, None),
        Signed(WorkerKey(key, ZEROS, 0, 1), key, b""),
        "ready", (), 0, (), 5.0, 0.0,
    )  # fmt: skip
