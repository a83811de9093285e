"""What systemd hears of a node, over a socket such as it listens at; and what it says of the unit."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from fallow.node.notifying import notify, watchdog

from .conftest import READY_S, Home, launch

UNIT = Path(__file__).parents[2] / "node/systemd/fallow.service"
EXPOSURE_MAX = 45
"""Tenths of systemd's own measure from 0 to 10: `OK`. What keeps it from less is what the worker's sandbox needs."""


class Listener:
    """systemd's end of the socket."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        listening.settimeout(READY_S)

    def hear(self) -> Mapping[str, str]:
        """The next message: its words by their names."""
        return dict(line.split("=", 1) for line in self._listening.recv(4096).decode().splitlines())

    def until(self, word: str) -> Mapping[str, str]:
        while word not in (heard := self.hear()):
            pass
        return heard


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + address[1:] if address.startswith("@") else address)
        yield Listener(bound)


def test_a_node_says_that_it_is_ready_alive_and_about_to_stop(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    with listening(address) as systemd:
        process = launch(tmp_path, home, bundles=["tiny-embed"])
        try:
            assert systemd.until("READY") == {"READY": "1", "STATUS": "ready"}
            for _ in range(3):
                assert systemd.hear() == {"WATCHDOG": "1", "STATUS": "ready"}
            process.terminate()
            assert systemd.until("STOPPING")["STATUS"] == "jobs are being handed back"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()


def test_the_socket_may_have_a_name_in_no_folder_and_nobody_need_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (f"@fallow-test-{os.getpid()}", str(tmp_path / "notify")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify(READY="1")
        with listening(address) as systemd:
            assert notify(READY="1", STATUS="two words")
            assert systemd.hear() == {"READY": "1", "STATUS": "two words"}
    for address in ("", "relative", "vsock:2:1234"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify(READY="1")


@pytest.mark.parametrize(
    "environment", [{"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "often"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}]
)  # fmt: skip
async def test_who_is_not_watched_gives_no_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with listening(address), trio.fail_after(10):
        await watchdog(lambda: "ready")  # returns; otherwise it would go on for ever


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_accepts_the_unit() -> None:
    said = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(UNIT))
    assert (said.returncode, said.stderr) == (0, "")


def test_the_unit_is_as_confined_as_its_worker_lets_it_be() -> None:
    said = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(UNIT))
    assert said.returncode == 0, said.stdout
