"""The owner's page over a real node: for this machine, for whoever knows its address, and for nobody else."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from fallow.node import control
from fallow.node.metrics import TABLE
from fallow.node.page.parts import HERE, templates
from fallow.node.page.server import ASSETS, load_key
from fallow.node.page.shortcut import shortcut
from fallow.protocol.errors import ConfigError
from fallow.protocol.job import JobState
from fallow.protocol.work import Work

from ..moments import pause
from .browser import CHROMIUM, tab
from .conftest import READY_S, Daemon, Home, Start, client_network, failure
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))
HOSTILE = "<script>alert(1)</script>"


class Page:
    """A node's page, asked as a program would."""

    def __init__(self, node: Daemon) -> None:
        self.node = node
        self.address = str(control.request(node.state, control.PAGE)["address"])
        parts = urlsplit(self.address)
        self.host, self.key = parts.netloc, parts.path.strip("/")

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body. The path counts from the page's own."""
        given = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            where = path if path.startswith("/") else f"/{self.key}/{path}"
            connection.request(method, where, body, {name: value for name, value in given.items() if value})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def do(self, command: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """As the page itself would."""
        return self.ask(command, "POST", body, **{"Origin": f"http://{self.host}", **headers})


@pytest.fixture(scope="module")
def page(start: Start) -> Page:
    return Page(start(page="127.0.0.1:0", bundles=["tiny-chat"]))


def until_ready(node: Daemon) -> None:
    deadline = time.monotonic() + READY_S
    while node.command(control.STATUS)["state"] != "ready":
        assert time.monotonic() < deadline
        pause()


def test_the_page_shows_the_node_and_runs_nothing_but_its_own(page: Page) -> None:
    status, headers, body = page.ask("")
    assert status == 200 and headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "same-origin" and headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "It is lent, and waits for orders." in body
    assert re.findall(r"<script[^>]*>", body) == [
        f'<script src="assets/{name}" defer>' for name in ("htmx.min.js", "uPlot.iife.min.js", "owner.js")
    ]
    assert "style=" not in body and "onclick" not in body
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", body), "nothing comes from elsewhere"
    for name, kind in ASSETS.items():
        status, headers, content = page.ask(f"assets/{name}")
        assert (status, headers["content-type"]) == (200, kind)
        assert content == (HERE / "assets" / name).read_text("utf-8")
    assert json.loads(page.ask("day.json")[2])["problem"] == ""


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/state",
        "/metrics",
        "/favicon.ico",
        "/00000000000000000000000000000000/",
        "/assets/base.css",
        "//",
    ],
)
def test_without_the_key_nothing_is_shown(page: Page, path: str) -> None:
    status, _, body = page.ask(path)
    assert status == 403
    assert page.key not in body and "lent" not in body


@pytest.mark.parametrize(
    "path", ["assets/..%2fpage.html", "assets/../page.html", "assets/", "server.py", "state/", "%00"]
)
def test_there_is_nothing_else(page: Page, path: str) -> None:
    assert page.ask(path)[0] == 404


def test_other_sites_are_refused(page: Page) -> None:
    port = page.host.rpartition(":")[2]
    for host in ("fallow.example", f"127.0.0.1:{int(port) + 1}", f"localhost.example:{port}", f"fallow.example:{port}"):
        assert page.ask("state", Host=host)[0] == 403
    assert page.ask("state", Host=f"localhost:{port}")[0] == 200
    for origin in (
        "null",
        "http://fallow.example",
        f"https://{page.host}",
        f"http://localhost:{port}",
        "http://127.0.0.1:1",
    ):
        for method in ("GET", "POST"):
            status, headers, _ = page.ask("opt-out" if method == "POST" else "state", method, "", Origin=origin)
            assert status == 403 and "access-control-allow-origin" not in headers
    for how in (
        {},
        {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
    ):
        assert page.ask("state", Sec_Fetch_Site="cross-site", **how)[0] == 403
    led = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert page.ask("", **led)[0] == 200 and page.ask("/", **led)[0] == 403
    assert page.ask("opt-out", "POST", "", **led)[0] == 403
    assert page.ask("opt-out", "POST", "")[0] == 403, "no browser leaves the origin out"
    assert page.ask("opt-out", "OPTIONS", Origin=f"http://{page.host}")[0] == 405
    assert page.ask("opt-out")[0] == 405
    assert page.node.command(control.STATUS)["state"] == "ready", "nothing of this has done anything"


def test_the_buttons_are_the_owners_word(page: Page) -> None:
    status, headers, _ = page.do("pause", "seconds=3600")
    assert (status, headers["location"]) == (303, f"/{page.key}/")
    assert "the owner has paused it" in page.ask("state")[2]
    assert page.node.command(control.STATUS)["next"] in ("The pause ends in 60 min.", "The pause ends in 59 min.")
    status, _, body = page.do("opt-out", HX_Request="true")
    assert status == 200 and "Lend it again" in body and "<html" not in body
    assert "(<code>fallow node opt-in</code> lends again)" in body
    for command in ("opt-in", "resume"):
        assert page.do(command)[0] == 303
    until_ready(page.node)


@pytest.mark.parametrize(
    "body", ["", "seconds=", "seconds=-1", "seconds=1e3", "seconds=0", "seconds=999999999999", "seconds=3&seconds=4", "x=1",
             "seconds=60&x=1", "seconds=%D9%A3", "%", "seconds=" + "9" * 5000]
)  # fmt: skip
def test_a_pause_that_is_none_pauses_nothing(page: Page, body: str) -> None:
    status, _, said = page.do("pause", body)
    assert status in (400, 413) and json.loads(said)["code"] in ("bad_request", "too_large")
    assert page.node.command(control.STATUS)["state"] == "ready"


def test_a_question_about_other_preferences_is_answered(page: Page) -> None:
    assert page.ask("what-if")[0] == 400
    assert page.ask("what-if?word=margin_pct")[0] == 400
    _, _, body = page.ask("what-if?word=margin_pct&value=lots")
    assert "Setting `preferences.margin_pct`: must be a number" in body
    _, _, body = page.ask(f"what-if?word=%3Cscript%3E&value={HOSTILE}".replace("<", "%3C").replace(">", "%3E"))
    assert "<script" not in body and "&lt;script&gt;" in body
    _, _, body = page.ask("what-if?word=start_hour&value=3")
    assert "two ends" in body
    _, _, body = page.ask("what-if?word=min_ucr_per_hour&value=5")
    assert "With min_ucr_per_hour = 5 it would have been lent as long as it was" in body


async def test_metrics_count_what_was_done_and_name_nobody(page: Page, home: Home) -> None:
    async with client_network([page.node.address]) as network:
        payer = Payer(await profile_of(network, network.peers()[0]))
        talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=8))
        await talk.run()
        assert talk.job.state is JobState.SETTLED
        mine = network.key.hex()
    authorised = partial(page.ask, "/metrics", Authorization=f"Bearer {page.key}")
    status, headers, text = await trio.to_thread.run_sync(authorised)
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert text.splitlines() == (await trio.to_thread.run_sync(page.ask, "metrics"))[2].splitlines()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#")
    assert values['fallow_node_state{state="ready"}'] == "1.0"
    assert values['fallow_jobs_accepted_total{entry="generate"}'] == "1.0"
    assert values['fallow_jobs_ended_total{state="settled"}'] == "1.0"
    assert values["fallow_tokens_total"] == "8.0" and float(values["fallow_energy_joules_total"]) > 0
    assert set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) == {kind.name for kind in TABLE}
    assert mine not in text and payer.key.verify_key.encode().hex() not in text and "127.0.0.1" not in text
    assert {label for name in values for label in re.findall(r"(\w+)=\"", name)} <= {kind.label for kind in TABLE}
    shown = (await trio.to_thread.run_sync(page.ask, "state"))[2]
    assert "<td>generate</td><td>settled</td>" in shown
    assert mine not in shown and payer.key.verify_key.encode().hex()[:8] not in shown


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is here")
async def test_a_browser_shows_it_follows_it_and_presses_its_buttons(page: Page, tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with tab(tmp_path / "browser", page.address) as shown:
            await shown.until("document.getElementById('link').textContent === 'live'")
            await shown.until("document.querySelectorAll('.uplot canvas').length === 2")
            await shown.run("document.querySelector('form[action=opt-out] button').click()")
            await shown.until("document.querySelector('form[action=opt-in]') !== null")
            said = await trio.to_thread.run_sync(page.node.command, control.STATUS)
            assert said["now"] == "It is not lent: the owner has opted out (`fallow node opt-in` lends again)."
            await shown.run("document.querySelector('form[action=opt-in] button').click()")
            await shown.until("document.querySelector('form[action=opt-out]') !== null")
            # A page that gives way to another one, as a form was sent without its script, loses what is pressed in it.
            live, press = (
                "document.getElementById('link')?.textContent === 'live'",
                "querySelector('#ask button')?.click()",
            )
            answered = "document.querySelector('#answer p') !== null"
            await shown.until(f"{answered} || ({live} && document.{press} && false)")
            await trio.to_thread.run_sync(page.node.command, control.PARK)
            await shown.until("document.querySelector('.headline').textContent.includes('waits for orders')")
            await shown.picture(tmp_path / "page.png")
            assert shown.complaints == []


def test_the_key_is_in_no_command_line(page: Page, tmp_path: Path) -> None:
    browser, given = tmp_path / "browser", tmp_path / "given"
    browser.write_text(f'#!/bin/sh\necho "$*" > {given}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "fallow.cli", "node", "page", "--state", str(page.node.state), "--open"]
    surroundings = {**os.environ, "BROWSER": f"{browser} %s"}
    ran = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == page.address
    path = Path(urlsplit(given.read_text().strip()).path)
    assert page.key not in given.read_text() and path == page.node.state / "page.html"
    assert f"0; url={page.address}" in path.read_text() and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is here")
async def test_a_browser_follows_the_file_to_the_page(page: Page, tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with tab(tmp_path / "browser", shortcut(tmp_path, page.address).as_uri()) as shown:
            await shown.until("document.getElementById('link')?.textContent === 'live'")
            assert shown.complaints == []


def test_what_stands_in_backticks_is_shown_as_code_and_nothing_else_of_it_is_html() -> None:
    shown = templates(HERE).from_string("{{ words|marked }}").render(words=f"say `{HOSTILE}`, <b>`")
    assert shown == "say <code>&lt;script&gt;alert(1)&lt;/script&gt;</code>, &lt;b&gt;`"


def test_the_key_is_kept_and_one_that_others_could_read_is_not(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    path = tmp_path / "page.key"
    assert len(key) == 32 and path.stat().st_mode & 0o777 == 0o600 and load_key(tmp_path) == key
    path.chmod(0o644)
    assert load_key(tmp_path) != key and path.stat().st_mode & 0o777 == 0o600
    path.write_text("short")
    assert len(load_key(tmp_path)) == 32
    with pytest.raises(ConfigError, match="cannot be used"):
        load_key(tmp_path / "nowhere")


def test_a_node_without_a_page_says_how_to_have_one_and_a_busy_port_is_said(
    start: Start, home: Home, page: Page, tmp_path: Path
) -> None:
    assert "[port_busy]" in failure(tmp_path, home, page=page.host)
    node = start(bundles=["tiny-embed"])
    with pytest.raises(ConfigError, match=r'`page = "127.0.0.1:8781"`'):
        control.request(node.state, control.PAGE)
