"""A VEN against a VTN on the wire: what it is asked it asks of the machine; whatever is wrong with the VTN is said, and what
was in force stays in force."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

from fallow.node.grid import openadr, openadr_http, openadr_kept
from fallow.node.grid.openadr import Ven
from fallow.node.grid.openadr_config import OpenAdr
from fallow.node.grid.openadr_http import Vtn as Server
from fallow.node.grid.openadr_http import VtnError, client
from fallow.node.grid.openadr_reports import Figures
from fallow.node.lending import local_now
from fallow.node.log import EventLog
from fallow.node.rules.asked import Asked

from .vtn import CLIENT, SECRET, Vtn, certificate, interval, program, serving

STOP = interval(("SIMPLE", 3))
NOW = {"start": "0001-01-01T00:00:00Z", "duration": "PT1H"}


class Followed:
    """A VEN in a folder of its own, asked when the test says so."""

    def __init__(self, folder: Path, vtn: Vtn, **more: Any) -> None:
        (folder / "secret").write_text(SECRET + "\n")
        self.config = replace(OpenAdr(vtn.url, CLIENT, folder / "secret", "car 7", poll_s=0.02), **more)
        self.changes, self.changed = 0, trio.Event()
        self.ven = Ven(self.config, folder, EventLog(folder), self._count)

    def _count(self) -> None:
        self.changes += 1
        self.changed.set()

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        async with client(self.config.ca) as http:
            yield Server(http, self.config.url, self.config.client_id, self.config.secret, self.config.token_url)

    async def poll(self) -> None:
        async with self.server() as server:
            await self.ven.poll(server)

    async def fails(self) -> str:
        with pytest.raises(VtnError) as found:
            await self.poll()
        return str(found.value)

    @property
    def asked(self) -> Asked:
        return self.ven.asked(local_now())

    @property
    def heard(self) -> list[str]:
        return self.ven.heard(local_now())

    async def until(self, holds: Callable[[], bool]) -> None:
        """The VEN runs until something holds."""
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.ven.run)
                while not holds():
                    await self.changed.wait()
                    self.changed = trio.Event()
                nursery.cancel_scope.cancel()


@pytest.fixture
async def vtn() -> AsyncIterator[Vtn]:
    async with serving(Vtn([program(), program("p2", "Prices")])) as vtn:
        yield vtn


async def test_a_ven_registers_follows_events_and_lets_go_of_what_is_cancelled(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW, eventName="peak")
    await followed.poll()
    assert "(OpenADR event peak: level 3, emergency)" in followed.asked.stops[0]
    assert [ven["venName"] for ven in vtn.vens] == ["car 7"] and vtn.tokens == 1
    assert followed.heard[0] == "OpenADR as car 7: followed, last heard 0 s ago, 1 events known"
    vtn.put("e1", [interval(("IMPORT_CAPACITY_LIMIT", 3.0))], intervalPeriod=NOW)
    await followed.poll()
    assert (followed.asked.stops, followed.asked.imports[0][0]) == ((), 3000.0)
    del vtn.events["e1"]
    await followed.poll()
    assert not followed.asked.less and followed.changes == 3
    assert len(vtn.vens) == 1, "who is entered is not entered again"


async def test_it_runs_by_itself_and_comes_back_after_a_failure(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openadr, "RETRY_S_MAX", 0.02)
    followed = Followed(tmp_path, vtn)
    assert followed.heard[0] == "OpenADR as car 7: it has not been asked yet"
    vtn.refuses["/events"] = 503
    await followed.until(lambda: "status 503 (no)" in followed.heard[0])
    vtn.refuses.clear()
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.until(lambda: bool(followed.asked.stops))


async def test_only_the_programs_that_the_owner_names_are_followed(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn, programs=("Prices", "Sheds"), targets=("depot-7",))
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    vtn.put("e2", [interval(("PRICE", 0.4))], "p2", intervalPeriod=NOW)
    await followed.poll()
    assert not followed.asked.less
    assert "a kilowatt-hour costs 0.4" in followed.heard[-1]
    assert "it has no program Sheds" in followed.heard
    assert any("programID=p2" in asked and "targets=depot-7" in asked for asked in vtn.asked)


async def test_a_programs_descriptors_hold_for_its_events(vtn: Vtn, tmp_path: Path) -> None:
    row = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "IMPORT_CAPACITY_LIMIT", "units": "W"}
    vtn.programs = [program(payloadDescriptors=[row])]
    vtn.put("e1", [interval(("IMPORT_CAPACITY_LIMIT", 700))], intervalPeriod=NOW)
    followed = Followed(tmp_path, vtn)
    await followed.poll()
    assert followed.asked.imports[0][0] == 700


@pytest.mark.parametrize("refused", ["/programs", "/vens"])
async def test_events_are_asked_for_though_nothing_else_can_be_had(vtn: Vtn, tmp_path: Path, refused: str) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.refuses[refused] = 500
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    assert "(OpenADR event e1: level 3, emergency)" in followed.asked.stops[0]
    assert any("it answers with status 500 (no)" in line for line in followed.heard)
    vtn.refuses.clear()
    await followed.poll()
    assert not any("status 500" in line for line in followed.heard)


async def test_without_programs_a_limit_stops_for_its_unit_is_not_known(vtn: Vtn, tmp_path: Path) -> None:
    row = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "IMPORT_CAPACITY_LIMIT", "units": "W"}
    vtn.programs = [program(payloadDescriptors=[row])]
    vtn.refuses["/programs"] = 503
    vtn.put("e1", [interval(("IMPORT_CAPACITY_LIMIT", 700))], intervalPeriod=NOW)
    followed = Followed(tmp_path, vtn)
    await followed.poll()
    assert "of a program that cannot be read" in followed.asked.stops[0]
    vtn.refuses.clear()
    await followed.poll()
    assert (followed.asked.stops, followed.asked.imports[0][0]) == ((), 700)
    vtn.refuses["/programs"] = 503
    again = Followed(tmp_path, vtn)
    await again.poll()
    assert (again.asked.stops, again.asked.imports[0][0]) == ((), 700), "what was understood before still is"


async def test_a_limit_of_a_program_that_is_newer_than_what_was_read_stops_until_it_is_read(
    vtn: Vtn, tmp_path: Path
) -> None:
    followed = Followed(tmp_path, vtn)
    await followed.poll()
    row = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "IMPORT_CAPACITY_LIMIT", "units": "W"}
    vtn.programs.append(program("p3", "Newer", payloadDescriptors=[row]))
    vtn.put("e1", [interval(("IMPORT_CAPACITY_LIMIT", 700))], "p3", intervalPeriod=NOW)
    vtn.refuses["/programs"] = 503
    for _ in range(2):
        await followed.poll()
        assert "of a program that cannot be read" in followed.asked.stops[0], "it might be 700 W or 700 MW"
    vtn.refuses.clear()
    await followed.poll()
    assert (followed.asked.stops, followed.asked.imports[0][0]) == ((), 700), "an hour is not waited for"
    vtn.put("e1", [interval(("IMPORT_CAPACITY_LIMIT", 700))], "p4", intervalPeriod=NOW)
    await followed.poll()
    assert "of a program that cannot be read" in followed.asked.stops[0], "another program's units are not this one's"


async def test_of_named_programs_that_were_never_read_nothing_can_be_asked(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn, programs=("Shed",))
    vtn.refuses["/programs"] = 503
    assert await followed.fails() == "it answers with status 503 (no)"
    vtn.refuses.clear()
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    vtn.refuses["/programs"] = 503
    followed.ven._programs_at_s = -inf
    del vtn.events["e1"]
    await followed.poll()
    assert not followed.asked.less


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("slow", "it does not answer in 0.2 s"), ("huge", "more than 4194304 bytes"), ("nonsense", "it sends what is no JSON"),
        ("html", "it sends what is no JSON"), ("packed", "it packs its answer"), ("redirect", "it answers with status 302"),
    ],
)  # fmt: skip
async def test_whatever_is_wrong_with_the_vtn_a_stop_order_goes_on_counting(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    monkeypatch.setattr(openadr, "RETRY_S_MAX", 0.02)
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    monkeypatch.setattr(openadr_http, "ANSWER_S", 0.2)
    vtn.fault = fault
    vtn.events.clear()
    await followed.until(lambda: said in followed.heard[0])
    assert followed.asked.stops
    assert "what it asked for before goes on counting" in followed.heard[0]


async def test_a_vtn_that_is_gone_leaves_a_stop_order_behind_over_restarts_until_its_end(tmp_path: Path) -> None:
    async with serving(Vtn([program()])) as vtn:
        vtn.put("e1", [STOP], intervalPeriod=NOW)
        followed = Followed(tmp_path, vtn)
        await followed.poll()
        stops = followed.asked.stops
    assert "it cannot be reached" in await followed.fails()
    again = Followed(tmp_path, vtn)
    assert again.asked.stops == stops
    now = local_now()
    assert again.ven.asked(replace(now, wall_ms=now.wall_ms + 3_700_000)).stops == ()
    assert (tmp_path / "openadr.json").stat().st_mode & 0o777 == 0o600


async def test_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    for damaged in (b"", b"{", b"[]", b'{"seed": "zz", "events": []}', b'{"seed": "00", "events": [{"raw": 1}]}'):
        (tmp_path / "openadr.json").write_bytes(damaged)
        assert not Followed(tmp_path, Vtn()).asked.less


async def test_an_event_too_deep_to_be_written_down_counts_all_the_same(vtn: Vtn, tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(2 * sys.getrecursionlimit()):
        deep = [deep]
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    (one,) = followed.ven._kept.values()
    openadr_kept.save(tmp_path / "openadr.json", b"", [replace(one, raw={"deep": deep})], EventLog(tmp_path))
    assert Followed(tmp_path, vtn).asked.stops


async def test_an_event_that_turns_to_nonsense_stays_what_it_was(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    vtn.put("e1", [interval(("SIMPLE", 0), duration="-PT1H")], intervalPeriod=NOW)
    await followed.poll()
    assert followed.asked.stops
    assert "not understood: '-PT1H' is no duration" in followed.heard


async def test_the_vtns_clock_counts_and_setting_ones_own_changes_nothing(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.date_s = 1_795_885_200.0
    vtn.put("e1", [STOP], intervalPeriod={"start": "2026-11-28T17:00:00Z", "duration": "PT1H"})
    await followed.poll()
    now = local_now()
    for hours in (-48, 0, 48):
        assert followed.ven.asked(replace(now, wall_ms=now.wall_ms + hours * 3_600_000)).stops
    later = replace(now, ms=now.ms + 3_600_000)
    assert not followed.ven.asked(later).less


async def test_a_token_that_has_expired_or_was_revoked_is_renewed(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = Followed(tmp_path, vtn)
    async with followed.server() as server:
        await followed.ven.poll(server)
        vtn.revoked.add("token-1")
        await followed.ven.poll(server)
        assert vtn.tokens == 2
        vtn.revoked |= {f"token-{number}" for number in range(9)}
        with pytest.raises(VtnError, match="status 401"):
            await followed.ven.poll(server)
        assert vtn.tokens == 3, "it is not tried for ever"
    vtn.revoked.clear()
    vtn.lasts_s = 1
    before = vtn.tokens
    async with followed.server() as server:
        await server.call("GET", "/programs", {"skip": 0, "limit": 50})
        now_s = trio.current_time()
        monkeypatch.setattr(trio, "current_time", lambda: now_s + 1)
        await server.call("GET", "/programs", {"skip": 0, "limit": 50})
    assert vtn.tokens == before + 2


async def test_a_wrong_secret_and_a_missing_one_are_said(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    (tmp_path / "secret").write_text("guess")
    assert await followed.fails() == "no token: it answers with status 401 (invalid_client; no such client)"
    (tmp_path / "secret").unlink()
    assert "with its secret cannot be read: No such file" in await followed.fails()


async def test_a_certificate_has_to_hold(tmp_path: Path) -> None:
    for days, ca, said in (
        (30, tmp_path / "ca.pem", ""),
        (30, None, "self-signed certificate"),
        (-1, tmp_path / "ca.pem", "its certificate does not hold: certificate has expired"),
        (30, tmp_path / "none.pem", "none.pem holds no certificate"),
    ):
        async with serving(Vtn([program()]), certificate(tmp_path, days)) as vtn:
            followed = Followed(tmp_path, vtn, ca=ca)
            if said:
                assert said in await followed.fails()
            else:
                await followed.poll()
    assert not (tmp_path / "none.pem").exists()


async def test_tokens_are_asked_for_over_tls_only(vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(tmp_path, vtn)
    monkeypatch.setattr(Vtn, "url", "http://192.0.2.1/openadr3/3.1.0")
    assert await followed.fails() == "it names no place for tokens that is https://"


async def test_a_vtn_that_enters_its_vens_itself_is_followed_all_the_same(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.refuses["/vens"] = 403
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    assert followed.asked.stops
    assert "it does not register car 7: it answers with status 403 (no)" in followed.heard


async def test_of_many_pages_an_event_is_gone_only_if_the_vtn_says_so(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.put("e-stop", [STOP], intervalPeriod=NOW)
    for number in range(60):
        vtn.put(f"e{number}", [interval(("PRICE", 0.1))], intervalPeriod=NOW)
    await followed.poll()
    assert "61 events known" in followed.heard[0]
    listed = vtn._page

    def without_the_first(kind: str, found: list[Any], query: dict[str, list[str]]) -> tuple[int, Any]:
        return listed(kind, [each for each in found if each["id"] != "e-stop"], query)

    vtn._page = without_the_first  # type: ignore[method-assign]
    await followed.poll()
    assert followed.asked.stops
    del vtn.events["e-stop"]
    await followed.poll()
    assert not followed.asked.less


async def test_a_new_stop_counts_whatever_becomes_of_the_question_for_events_that_are_missing(
    vtn: Vtn, tmp_path: Path
) -> None:
    followed = Followed(tmp_path, vtn)
    for number in range(60):
        vtn.put(f"e{number}", [interval(("PRICE", 0.1))], intervalPeriod=NOW)
    await followed.poll()
    del vtn.events["e7"]
    vtn.put("e-stop", [STOP], intervalPeriod=NOW)
    vtn.refuses["/events/e7"] = 503
    await followed.poll()
    assert followed.asked.stops
    assert "61 events known" in followed.heard[0], "what is not known to be gone is kept"
    vtn.refuses.clear()
    await followed.poll()
    assert "60 events known" in followed.heard[0]


async def test_a_program_that_is_not_listed_for_a_moment_takes_no_stop_with_it(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn, programs=("Shed", "Prices"))
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    vtn.put("e2", [interval(("PRICE", 0.1))], "p2", intervalPeriod=NOW)
    await followed.poll()
    programs, vtn.programs = vtn.programs, vtn.programs[1:]
    followed.ven._programs_at_s = -inf
    await followed.poll()
    assert followed.asked.stops and "it has no program Shed" in followed.heard
    vtn.programs = programs
    del vtn.events["e1"]
    await followed.poll()
    assert not followed.asked.less


async def test_a_disk_that_hangs_keeps_no_question_from_being_asked(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openadr, "SAVE_S", 0.05)
    hangs, written = threading.Event(), openadr.save

    def save(*all_of_it: Any) -> None:
        hangs.wait(20)
        written(*all_of_it)

    monkeypatch.setattr(openadr, "save", save)
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    try:
        with trio.fail_after(10):
            await followed.poll()
            vtn.put("e2", [interval(("PRICE", 0.1))], intervalPeriod=NOW)
            await followed.poll()
        assert followed.asked.stops and "2 events known" in followed.heard[0]
        assert not (tmp_path / "openadr.json").exists()
    finally:
        hangs.set()
    monkeypatch.setattr(openadr, "SAVE_S", 10)
    await followed.poll()
    assert Followed(tmp_path, vtn).ven._kept.keys() == {"e1", "e2"}


async def test_reports_that_nobody_takes_are_given_up_together(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openadr, "ANSWER_S", 0.2)
    followed = Followed(tmp_path, vtn, reports=("USAGE",))
    vtn.date_s = 1_795_885_200.0
    for number in range(3):
        period = {"start": "2026-11-28T17:00:00Z", "duration": "PT10M"}
        vtn.put(f"e{number}", [STOP], intervalPeriod=period, reportDescriptors=[{"payloadType": "USAGE"}])
    await followed.poll()
    vtn.date_s += 601
    answer = vtn._answer

    def slow_reports(head: Any, target: str, body: bytes) -> tuple[int, Any]:
        vtn.fault = "slow" if target == "/reports" else ""
        return answer(head, target, body)

    vtn._answer = slow_reports  # type: ignore[method-assign]
    with trio.fail_after(10):
        await followed.poll()
    assert "reports were not taken in 0.2 s" in followed.heard


async def test_a_vtn_that_asks_for_time_gets_it(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    vtn.refuses["/events"], vtn.retry_s = 429, "120"
    with pytest.raises(VtnError) as found:
        await followed.poll()
    assert (found.value.status, found.value.retry_s) == (429, 120.0)
    vtn.retry_s = "in a while"
    with pytest.raises(VtnError) as found:
        await followed.poll()
    assert found.value.retry_s == 0


async def test_a_list_without_end_is_not_taken(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn)
    for number in range(510):
        vtn.put(f"e{number}", [interval(("PRICE", 0.1))], intervalPeriod=NOW)
    assert await followed.fails() == "it has more than 500 objects at /events"


async def test_what_the_owner_allows_is_reported_of_events_that_ask_for_it(vtn: Vtn, tmp_path: Path) -> None:
    followed = Followed(tmp_path, vtn, reports=("USAGE", "OPERATING_STATE", "LOAD_SHED_DELTA_AVAILABLE"))
    wanted = [{"payloadType": kind} for kind in ("USAGE", "OPERATING_STATE", "LOAD_SHED_DELTA_AVAILABLE", "DEMAND")]
    vtn.date_s = 1_795_885_200.0
    period = {"start": "2026-11-28T17:00:00Z", "duration": "PT10M"}
    vtn.put("e1", [STOP], intervalPeriod=period, reportDescriptors=wanted)
    vtn.put("e2", [STOP], intervalPeriod=period)
    followed.ven.figures = lambda: Figures(used_j=1e6, works=True, sheds_w=80.0)
    await followed.poll()
    assert vtn.reports == []
    vtn.date_s += 601
    followed.ven.figures = lambda: Figures(used_j=1e6 + 3.6e6, works=False, curtailed=True)
    await followed.poll()
    (report,) = vtn.reports
    assert (report["eventID"], report["clientName"]) == ("e1", "car 7")
    (resource,) = report["resources"]
    (stretch,) = resource["intervals"]
    assert stretch["intervalPeriod"] == {"start": "2026-11-28T17:00:00Z", "duration": "PT601S"}
    assert {each["type"]: each["values"] for each in stretch["payloads"]} == {
        "USAGE": [1.0], "OPERATING_STATE": ["IDLE_CURTAILED"], "LOAD_SHED_DELTA_AVAILABLE": [0.0],
    }  # fmt: skip
    await followed.poll()
    assert len(vtn.reports) == 1


async def test_nothing_is_reported_unless_the_owner_says_so_and_a_refused_report_stops_nothing(
    vtn: Vtn, tmp_path: Path
) -> None:
    wanted = [{"payloadType": "USAGE"}]
    vtn.date_s = 1_795_885_200.0
    vtn.put("e1", [STOP], intervalPeriod={"start": "2026-11-28T17:00:00Z"}, reportDescriptors=wanted)
    for number, (allowed, refused) in enumerate([((), {}), (("USAGE",), {"/reports": 500})]):
        folder = tmp_path / str(number)
        folder.mkdir()
        followed = Followed(folder, vtn, reports=allowed)
        vtn.refuses = dict(refused)
        await followed.poll()
        vtn.date_s += 901
        await followed.poll()
        assert followed.asked.stops and not vtn.reports
        assert any("a report of OpenADR event e1 was not taken" in line for line in followed.heard) is bool(refused)


async def test_more_intervals_than_anybody_needs_are_not_laid_out(
    vtn: Vtn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openadr_kept, "INTERVALS_MAX", 5)
    followed = Followed(tmp_path, vtn)
    vtn.put("e1", [STOP], intervalPeriod=NOW)
    await followed.poll()
    vtn.put("e2", [interval(("PRICE", 0.1), number=number) for number in range(5)], intervalPeriod=NOW)
    assert await followed.fails() == "its events have more than 5 intervals"
    assert followed.asked.stops
