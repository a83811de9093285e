"""What is shown of a network: the truth, bounded, and escaped."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

from fallow.client import connect
from fallow.client.gateway_http import listening
from fallow.protocol.errors import ConfigError
from fallow.testnet.watch.looking import Look, Watcher
from fallow.testnet.watch.screen import drawn
from fallow.testnet.watch.sources import READ_BYTES_MAX, RECENT_MAX, LogTail, Tail
from fallow.testnet.watch.web import READERS_MAX, serve

from .small_mesh import BUNDLE, SmallMesh

HOSTILE = "<script>alert(1)</script>\x1b[2J"


async def test_a_look_shows_what_the_nodes_did(small_mesh: SmallMesh, tmp_path: Path) -> None:
    with trio.fail_after(150):
        home = small_mesh.stranger(tmp_path / "home")
        honest = [small_mesh.nodes[name].peer_id for name in ("honest", "honest-too")]
        watcher = Watcher(small_mesh.folder, [home / "wallet.db"])  # which is not there before the client's first job
        async with connect(small_mesh.bootstrap, home=home) as mesh:
            answer = await mesh.generate(BUNDLE, "Go on.", max_tokens=8, executors=honest)
        async with trio.open_nursery() as nursery:
            look = await watcher.look(nursery)
            again = await watcher.look(nursery)
    paid = {r.executor: r.paid_ucr for r in answer.receipts if r.paid_ucr}
    assert paid
    seen = {node.peer_id: node for node in look.nodes}
    assert seen.keys() == {node.peer_id for node in small_mesh.nodes.values()}
    assert {node.state for node in look.nodes} <= {"ready", "busy"}
    for peer, ucr in paid.items():
        assert seen[peer].settled > 0 and seen[peer].tokens > 0
        assert seen[peer].claimed_ucr >= seen[peer].promised_ucr >= ucr
    assert look.verdicts["accepted"] == again.verdicts["accepted"] == 1
    assert [kind for kind, _, _ in look.by_kind_and_region()] == ["host"]
    assert again.point.tokens == look.point.tokens
    assert len(watcher.points) == 2
    text = _on_screen(look)
    assert all(name in text for name in small_mesh.nodes)


def _on_screen(look: Look) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(drawn(look))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


async def _get(port: int, path: str, host: str | None = None, more: int = 0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; of a stream, the body's first `more` bytes at least."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        name = host if host is not None else f"127.0.0.1:{port}"
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        async for part in stream:
            received += part
            if more and received.count(b"data: ") >= more:
                break
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def test_the_page_is_served_to_this_machine_and_follows(small_mesh: SmallMesh) -> None:
    with (small_mesh.nodes["honest"].state / "node.log").open("a") as log:
        log.write(json.dumps({"time_ms": 2**41, "event": "job_refused", "code": "busy", "why": HOSTILE}) + "\n")
    with trio.fail_after(150):
        async with trio.open_nursery() as nursery:
            listener = listening("127.0.0.1:0")
            port = listener.getsockname()[1]
            await nursery.start(serve, Watcher(small_mesh.folder), listener)
            status, headers, body = await _get(port, "/")
            assert status == 200
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            page = body.decode()
            assert small_mesh.nodes["faces"].peer_id[-8:] in page
            assert "<script>alert" not in page and "&lt;script&gt;alert" in page
            assert page.count("<script") == 2  # its own two, from files
            for name, kind in (("uPlot.iife.min.js", "javascript"), ("uPlot.LICENSE", "plain"), ("watch.css", "css")):
                status, headers, body = await _get(port, f"/assets/{name}")
                assert (status, kind in headers["content-type"]) == (200, True)
                assert body
            assert (await _get(port, "/assets/..%2fpage.html"))[0] == 404
            assert (await _get(port, "/assets/looking.py"))[0] == 404
            for host in ("fallow.example", f"127.0.0.1:{port + 1}", "", f"localhost.example:{port}"):
                assert (await _get(port, "/", host))[0] in (400, 403)
            assert (await _get(port, "/", f"localhost:{port}"))[0] == 200
            status, headers, body = await _get(port, "/events", more=2)
            assert headers["content-type"].startswith("text/event-stream")
            first, second = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")][
                :2
            ]
            assert second["point"][0] > first["point"][0]
            assert "<script>alert" not in first["state"] + first["events"] and len(first["point"]) == 8
            await _crowd(port)
            nursery.cancel_scope.cancel()


async def _crowd(port: int) -> None:
    """No more pages than may be are followed at once."""
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(READERS_MAX)]
    for stream in streams:
        await stream.send_all(f"GET /events HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        assert (await stream.receive_some(12)).endswith(b"200")
    assert (await _get(port, "/events"))[0] == 503
    for stream in streams:
        await stream.aclose()


async def test_only_loopback_is_listened_on(small_mesh: SmallMesh) -> None:
    with closing(listening("0.0.0.0:0")) as listener, pytest.raises(ConfigError, match="this machine alone"):
        await serve(Watcher(small_mesh.folder), listener)


def test_the_command_looks_once(small_mesh: SmallMesh, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fallow.cli",
        "testnet",
        "watch",
        "--dir",
        str(small_mesh.folder),
        "--once",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"FALLOW_HOME": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["nodes"]) == len(small_mesh.nodes)


def test_a_log_is_read_as_it_grows_and_as_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    log = LogTail(path)
    log.read()

    def write(mode: str, *events: dict[str, Any]) -> None:
        with path.open(mode) as stream:
            stream.writelines(json.dumps({"time_ms": 1, **event}) + "\n" for event in events)

    write(
        "a",
        {"event": "yielded", "took_ms": 9, "reason": HOSTILE},
        {"event": "job_ended", "state": "settled", "tokens": 5},
    )
    log.read()
    log.read()
    assert (log.counts["yielded"], log.yield_ms, log.jobs_settled, log.tokens) == (1, 9, 1, 5)
    path.rename(tmp_path / "node.log.1")
    write("w", {"event": "job_ended", "state": "broken", "tokens": 2})
    with path.open("a") as stream:
        stream.write('not json\n[]\n{"event": 1}\n{"time_ms": 1, "event": "half')
    log.read()
    assert (log.jobs_settled, log.jobs_lost, log.tokens) == (1, 1, 7)
    write("a", *[{"event": "job_refused", "why": "busy"}] * 100)
    log.read()
    assert len(log.recent) == RECENT_MAX


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "lent", "why": []}, "lent"),
        ({"event": "withheld", "why": ["it is hot", "it drives"]}, "withheld: it is hot; it drives"),
        ({"event": "link", "kinds": ["wifi", "vpn"], "metered": None, "why": ""}, "link kinds wifi; vpn"),
        ({"event": "stream_broken", "why": ["the peer has gone"]}, "broken off: the peer has gone"),
        ({"event": "worker_ready"}, "worker ready"),
        ({"event": "worker_gone", "code": "worker_died", "why": "A fault.", "next": "Wait."}, "worker gone: A fault."),
    ],
)
def test_what_happened_is_said_in_words(tmp_path: Path, event: dict[str, Any], said: str) -> None:
    path = tmp_path / "node.log"
    path.write_text(json.dumps({"time_ms": 1, **event}) + "\n")
    log = LogTail(path)
    log.read()
    assert [each.what for each in log.recent] == [said]


def test_a_line_without_end_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * READ_BYTES_MAX + b"\nnext\n")
    tail = Tail(path)
    assert [len(line) for line in tail.lines()] == [READ_BYTES_MAX]
    assert tail.lines()[-1] == b"next"


def test_what_peers_write_does_not_steer_the_terminal(small_mesh: SmallMesh) -> None:
    from fallow.testnet.watch.looking import Happened, Point

    look = Look((), {}, (Happened(0, "node", HOSTILE),), Point(0, 0, 0, 0, 0, 0, 0, 0))
    assert "\x1b" not in _on_screen(look)
