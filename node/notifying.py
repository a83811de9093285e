"""What the node tells systemd, if that started it: ready, how it stands, and that it is alive (see sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

import trio

TICKS: Final = 3
"""Signs of life within the time after which systemd takes the node for dead."""


def notify(**words: str) -> bool:
    """systemd has been told, if it listens: `READY=1`, `STATUS=...`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    message = "\n".join(f"{name}={value}" for name, value in words.items()).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.setblocking(False)
            told.sendto(message, "\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        return False
    return True


async def watchdog(status: Callable[[], str]) -> None:
    """systemd is told again and again how the node stands, if it wants to know, until cancelled.

    Out of the loop in which all else runs: a node that hangs is silent, and started anew.
    """
    wanted_us = os.environ.get("WATCHDOG_USEC", "")
    if not wanted_us.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if not notify(WATCHDOG="1", STATUS=status()):
            return
        await trio.sleep(int(wanted_us) / 1e6 / TICKS)
