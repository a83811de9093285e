"""A node's part in the grid: from what an operator signs to what the node's work may draw."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.availability import Availability
from fallow.node.config import Config, load
from fallow.node.grid.ledger import LEDGER, Ledger
from fallow.node.grid.operator import main
from fallow.node.grid.parts import connection_caps, start_grid
from fallow.node.lending import Lending
from fallow.node.log import EventLog
from fallow.node.machine import boot_ms, wall_ms
from fallow.node.network.seam import Stream
from fallow.node.rules.asked import Asked
from fallow.node.rules.policy import Rules
from fallow.node.rules.preferences import Preferences
from fallow.node.rules.readings import Bound
from fallow.node.rules.worth import Draw
from fallow.node.words import said
from fallow.protocol.identity import peer_id
from fallow.protocol.streams import FEEDER_PROTOCOL

KEY = SigningKey(b"\x01" * 32)
OWN = peer_id(bytes(KEY.verify_key))


class Quiet:
    """A network with nobody else in it."""

    def __init__(self) -> None:
        self.served: list[str] = []

    def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]], *, watched: bool = False) -> None:
        self.served.append(protocol)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "roster.toml"
    path.write_text(f'feeder = "t-17"\ncap_w = 9000\nbegins = 2020-01-01T00:00:00Z\n{text}')
    return path


def signed(tmp_path: Path, capsys: pytest.CaptureFixture[str], begins: str) -> Config:
    """The configuration of a node whose feeder's operator has signed a roster for this week."""
    file = written(tmp_path, f'[[members]]\npeer = "{OWN}"\nguaranteed_w = 4000\n')
    file.write_text(file.read_text().replace("2020-01-01T00:00:00Z", begins))
    assert main([str(file), "--key", str(tmp_path / "grid.key"), "--out", str(tmp_path / "roster")]) == 0
    grid_key = capsys.readouterr().out.split('"')[1]
    node = tmp_path / "node.toml"
    node.write_text(
        f'state = "state"\nhome = "home"\n[grid.feeder]\nname = "t-17"\ngrid_key = "{grid_key}"\nroster = "roster"\n'
        "reserve_w = 500\n"
    )
    return load(node)


async def test_the_share_is_the_budget_and_its_words_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begins = datetime.now(UTC) - timedelta(days=1)
    config = signed(tmp_path, capsys, begins.isoformat(timespec="seconds"))
    config.state.mkdir()
    Ledger(config.state / LEDGER, wall_ms() - 2 * 86_400_000).close()  # it has been a member for a while
    rules = Rules(None, Preferences(), 0, Draw(100.0, 5_000.0))
    lending = Lending(rules, Availability(jobs_max=1), config.state, EventLog(config.state))
    network, enough, before = Quiet(), trio.Event(), lending.decision.budget_w
    lending.on_power = lambda decision: enough.set() if decision.budget_w > 0 else None
    assert before == float("inf")
    with ExitStack() as closing:  # as the daemon has it: the ledger is closed when nobody writes any more
        async with trio.open_nursery() as nursery:
            closing.enter_context(start_grid(config, KEY, network, lending, nursery, EventLog(config.state)))  # type: ignore[arg-type]
            assert lending.decision.budget_w == 0
            assert network.served == [FEEDER_PROTOCOL]
            with trio.fail_after(60):
                await enough.wait()
            assert lending.decision.budget_w == 3_500
            assert said(lending)["budget"] == "3500 W (its share of t-17, 4,000 W)"
            assert lending.wants_w() == 5_000
            nursery.cancel_scope.cancel()


async def test_a_roster_that_is_not_there_is_said_to_the_owner_and_in_the_nodes_own_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = signed(tmp_path, capsys, datetime.now(UTC).isoformat(timespec="seconds"))
    (tmp_path / "roster").unlink()
    config.state.mkdir()
    heard = trio.Event()
    log = EventLog(config.state, lambda event, fields: heard.set() if event == "feeder_roster_file" else None)
    lending = Lending(Rules(None, Preferences(), 0, Draw(100.0, 5_000.0)), Availability(jobs_max=1), config.state, log)
    with ExitStack() as closing:
        async with trio.open_nursery() as nursery:
            closing.enter_context(start_grid(config, KEY, Quiet(), lending, nursery, log))  # type: ignore[arg-type]
            with trio.fail_after(60):
                await heard.wait()
            nursery.cancel_scope.cancel()
    roster = config.state.parent / "roster"
    assert said(lending)["budget"] == f"0 W (no roster of t-17 holds now: {roster}: No such file or directory)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Setting `members`: must be set"),
        ('[[members]]\npeer = "me"\n', "line 5: Setting `members[0].peer`: must be a node's peer id"),
        (f'[[members]]\npeer = "{OWN}"\nguaranteed_w = 9001\n', "the guaranteed shares exceed the feeder's cap"),
        ("days = 8", "line 4: Setting `days`: must be a number from 0.01 to 7"),
        ("epok = 8", "line 4: Setting `epok`: there is no such setting; did you mean `epoch`?"),
    ],
)
def test_what_an_operator_cannot_sign_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    assert main([str(written(tmp_path, text)), "--key", str(tmp_path / "key"), "--out", str(tmp_path / "roster")]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "roster").exists()


def test_a_site_behind_a_feeder_keeps_within_its_share(tmp_path: Path) -> None:
    lending = Lending(
        Rules(None, Preferences(), 0, Draw(100.0, 5_000.0)), Availability(1), tmp_path, EventLog(tmp_path)
    )
    lending.grid.append(lambda now: Asked(imports=((9_000.0, "the grid"),)))
    lending.look()
    assert [watts for watts, _ in connection_caps(lending)] == [9_000]
    lending.bind("feeder", Bound(4_000.0, "its share", boot_ms() + 60_000, whole=True))
    assert [watts for watts, _ in connection_caps(lending)] == [9_000, 4_000]
    lending.bind("feeder", Bound(4_000.0, "its share", boot_ms()))
    assert [watts for watts, _ in connection_caps(lending)] == [9_000, 0]
