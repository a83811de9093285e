"""A delay line in a node's link: what goes either way comes so many milliseconds later, in order.

    ip netns exec WIRE python -m fallow.testnet.lateness PORT MILLISECONDS KEEPER_PID

The kernel's own, `netem`, is not everywhere; taps and redirection by `tc` are. On the wire's bridge a tap stands in the port's
place; what comes in at the port goes to a second tap, and what is written there goes out at the port. It ends with whoever
keeps the network, or on SIGTERM, and the link is as it was.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

_TUNSETIFF: Final = 0x400454CA
_TAP_WITHOUT_HEADER: Final = 0x1002
FRAME_BYTES: Final = 65_536
QUEUED_MAX: Final = 4096
"""Frames on their way each way: 6 MB, 500 Mbit/s for 100 ms. What is more is lost, as in a router."""
LOOK_S: Final = 0.5
"""Between two looks whether the keeper is there."""
READY: Final = "ready"


def in_place_of(port: str) -> str:
    """The device that stands on the bridge for a late port."""
    return f"late-{port}"


def main(port: str, delay_ms: int, keeper: int) -> None:
    """Frames are passed on until told to end, or the keeper has gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    bridge, link = in_place_of(port), f"own-{port}"
    one, other = _tap(bridge), _tap(link)
    try:
        _begin(port, bridge, link)
        print(READY, flush=True)
        _pass_on(one, other, delay_ms / 1000, keeper)
    finally:
        _end(port)


def _tap(name: str) -> int:
    """A tap of that name, for as long as the descriptor is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP_WITHOUT_HEADER))
    return descriptor


def _begin(port: str, bridge: str, link: str) -> None:
    _run("ip", "link", "set", link, "up")
    _redirect(port, link)
    _redirect(link, port)
    _run("ip", "link", "set", port, "nomaster")
    _run("ip", "link", "set", bridge, "master", "wire", "up")


def _redirect(device: str, to: str) -> None:
    """What comes in at the device goes out at the other one."""
    _run("tc", "qdisc", "add", "dev", device, "ingress")
    everything = ("u32", "match", "u32", "0", "0")
    _run(
        "tc", "filter", "add", "dev", device, "parent", "ffff:", "protocol", "all", *everything,
        "action", "mirred", "egress", "redirect", "dev", to,
    )  # fmt: skip


def _end(port: str) -> None:
    """The port is on the bridge again. The taps go with this process."""
    subprocess.run(["tc", "qdisc", "del", "dev", port, "ingress"], check=False, capture_output=True)
    subprocess.run(["ip", "link", "set", port, "master", "wire"], check=False, capture_output=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _pass_on(one: int, other: int, delay_s: float, keeper: int) -> None:
    late: dict[int, deque[tuple[float, bytes]]] = {one: deque(), other: deque()}
    """Of each end, what was read there and when it is due at the other."""
    to = {one: other, other: one}
    while Path(f"/proc/{keeper}").exists():
        due = [queue[0][0] for queue in late.values() if queue]
        wait_s = max(0.0, min(due, default=time.monotonic() + LOOK_S) - time.monotonic())
        readable, _, _ = select.select([one, other], [], [], min(wait_s, LOOK_S))
        for end in readable:
            frame = os.read(end, FRAME_BYTES)
            if len(late[end]) < QUEUED_MAX:
                late[end].append((time.monotonic() + delay_s, frame))
        for end, queue in late.items():
            while queue and queue[0][0] <= time.monotonic():
                _, frame = queue.popleft()
                with suppress(OSError):  # the device is down, or full: lost, as in a router
                    os.write(to[end], frame)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
