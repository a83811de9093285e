"""The deterrence bound and a simulation of it agree: draws and judgements by the real code, with checkers of one mind."""

from itertools import product
from random import Random

import pytest

from fallow.protocol.bundle import Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation, Outcome
from fallow.protocol.envelope import Signed
from fallow.protocol.policy import Policy, drawn_at
from fallow.protocol.receipts import OPEN, Receipt
from fallow.verifier.audits import FLOOR_PPM, MILLION, Deterrence, audit_ppm, held_needed_ucr
from fallow.verifier.quorum import Check, Judgement, Member, Window, judge_window

POLICY = Policy.parse(f"adaptive:{FLOOR_PPM}")
TOLERANCE = Tolerance(1_000, 1_000, 500, 0, 0, (), "-")
TRUE, WRONG = (-1_000,) * 4, (-60_000,) * 4
ZEROS = bytes(32)
TIMES = 1_500
SIGMAS = 4.0
"""Off by more is one seed in fifteen thousand; the seed stands."""
PRICE_UCR, SAVED_UCR = 120, 108


def _judged(random: Random, receipt: bytes, colluding: float) -> Judgement:
    """A wrong window, of which each checker confirms what it says with this chance: one is asked, and two
    more if it objects."""
    executor = Member(b"e" * 32, b"E" * 32)
    claim = Signed(Receipt(ZEROS, 0, None, 0, 4, ZEROS, WRONG, "float32", 1, OPEN), executor.node, receipt)
    checks: tuple[Check, ...] = ()
    for count in (1, 2):
        for _ in range(count):
            node, found = random.randbytes(32), WRONG if random.random() < colluding else TRUE
            said = Attestation(claim.id, ZEROS, TEACHER_FORCED, found, (0,) * 4, (0,) * 4, "float32")
            checks += (Check(Member(node, node[::-1]), 4, Signed(said, node, random.randbytes(16))),)
        judgement = judge_window(Window(claim, executor, checks, MILLION), POLICY, TOLERANCE)
        if judgement.outcome is not Outcome.INCONCLUSIVE:
            break
    return judgement


def _refuted(random: Random, rate_ppm: int, colluding: float) -> bool:
    receipt = random.randbytes(32)
    return drawn_at(rate_ppm, ZEROS, receipt) and _judged(random, receipt, colluding).outcome is Outcome.REJECTED


@pytest.mark.parametrize(("colluding", "windows"), list(product((0.0, 0.2, 0.5), (2, 10))))
def test_wrong_windows_are_refuted_as_often_as_the_bound_says(colluding: float, windows: int) -> None:
    held = windows * PRICE_UCR
    rate = audit_ppm(10**6, PRICE_UCR, held, FLOOR_PPM)
    said = Deterrence(rate / MILLION, colluding, PRICE_UCR, SAVED_UCR, held)
    random = Random(f"deterrence {colluding} {windows}")
    found = sum(_refuted(random, rate, colluding) for _ in range(TIMES)) / TIMES
    chance = said.checked * said.convicted
    assert found == pytest.approx(chance, abs=SIGMAS * (chance * (1 - chance) / TIMES) ** 0.5)
    gain, loss = SAVED_UCR * (1 - found), found * (held + PRICE_UCR - SAVED_UCR)
    if abs(said.loss_ucr - said.gain_ucr) > 0.2 * said.gain_ucr:  # else chance decides
        assert (loss >= gain) is said.honest_pays
    assert said.honest_pays is (held >= held_needed_ucr(said.checked, colluding, PRICE_UCR, SAVED_UCR))


def test_until_it_is_caught_a_liar_gets_as_many_windows_through_as_said() -> None:
    rate, colluding, random = 125_000, 0.2, Random(11)
    said = Deterrence(rate / MILLION, colluding, PRICE_UCR, SAVED_UCR, 10 * PRICE_UCR)
    lives = []
    for _ in range(200):
        windows = 1
        while not _refuted(random, rate, colluding):
            windows += 1
        lives.append(windows)
    mean = said.until_caught
    assert sum(lives) / len(lives) == pytest.approx(mean, abs=SIGMAS * mean / len(lives) ** 0.5)
