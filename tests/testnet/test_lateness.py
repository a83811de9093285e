"""A link with a fixed delay: felt by TCP, with nothing lost, and gone when it ends. Needs root and namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fallow.testnet import lateness, natlab
from fallow.testnet.natlab import Place

pytestmark = pytest.mark.skipif(bool(natlab.missing()), reason="network namespaces cannot be made here")

DELAY_MS = 150
BYTES = 200_000
"""More than one segment that a card would cut up by itself."""
SERVER = f"""
import socket
listener = socket.create_server(("0.0.0.0", 7000))
print("up", flush=True)
while True:
    connection, _ = listener.accept()
    left = {BYTES}
    while left:
        left -= len(connection.recv(65536))
    connection.sendall(bytes({BYTES}))
    connection.close()
"""
CLIENT = f"""
import socket, sys, time
began = time.monotonic()
connection = socket.create_connection((sys.argv[1], 7000), timeout=20)
took = time.monotonic() - began
connection.sendall(bytes({BYTES}))
came = 0
while part := connection.recv(65536):
    came += len(part)
print(round(took * 1000), came)
"""


def _asked(client: Place, server: Place) -> tuple[int, int]:
    """Milliseconds until the connection stood, and bytes that came back."""
    command = client.command([sys.executable, "-c", CLIENT, server.ip])
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    took_ms, came = map(int, done.stdout.split())
    return took_ms, came


def test_what_goes_either_way_comes_later_and_all_of_it_comes() -> None:
    with natlab.lab() as lab, _running(lab.public, SERVER) as (client, server):
        words = [sys.executable, "-m", lateness.__name__, server.port, str(DELAY_MS), str(os.getpid())]
        with subprocess.Popen(["ip", "netns", "exec", lab.wire, *words], stdout=subprocess.PIPE) as line:
            assert line.stdout is not None
            assert line.stdout.readline().decode().strip() == lateness.READY
            took_ms, came = _asked(client, server)
            line.terminate()
        assert took_ms >= 2 * DELAY_MS
        assert came == BYTES
        assert _asked(client, server)[1] == BYTES
        devices = subprocess.run(["ip", "-n", lab.wire, "-o", "link"], capture_output=True, text=True, check=True)
        assert lateness.in_place_of(server.port) not in devices.stdout
        assert f"{server.port}@" in devices.stdout


@contextmanager
def _running(place: Callable[[], Place], program: str) -> Iterator[tuple[Place, Place]]:
    """A client's place, and one where the server runs."""
    client, server = place(), place()
    with subprocess.Popen(server.command([sys.executable, "-c", program]), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield client, server
        finally:
            process.kill()
