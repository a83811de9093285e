"""One peer of Lattica's, told what to do on standard input; answers are lines of JSON. See `benchmarks/networks.py`.

Lattica is rust-libp2p in this process, below a thin and blocking layer of Python, which pickles what it is given.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from typing import Any

from lattica import ConnectionHandler, Lattica, rpc_method, rpc_stream

MIB = 1024 * 1024


class Service(ConnectionHandler):  # type: ignore[misc]  # it ships no types
    """What it offers others."""

    @rpc_method  # type: ignore[untyped-decorator]
    def echo(self, frame: bytes) -> bytes:
        return frame

    @rpc_stream  # type: ignore[untyped-decorator]
    def sink(self, frame: bytes) -> int:
        return len(frame)


def main(bootstrap: list[str], folder: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"  # it does not tell which port it was given
    began = time.perf_counter()
    builder = Lattica.builder().with_listen_addrs([here]).with_mdns(False).with_upnp(False)
    builder = builder.with_key_path(folder).with_storage_path(folder).with_idle_timeout(3600)
    if bootstrap:
        builder = builder.with_bootstraps(bootstrap)
    lattica = builder.build()
    service = Service(lattica)
    joined_s = time.perf_counter() - began
    name = lattica.peer_id()
    say({"name": name, "addresses": [f"{here}/p2p/{name}"], "joined_s": joined_s, "pids": []})

    def obey(order: list[Any]) -> object:
        match order:
            case ["store", key, size]:
                return lattica.store(key, b"x" * size)
            case ["get", key]:
                found = lattica.get(key)
                return found is not None and len(found.value)
            case ["echo", name]:
                return len(service.get_stub(name).echo(b"x" * 256).result())
            case ["bulk", name, mib]:
                return service.get_stub(name).sink(bytes(mib * MIB)).result()
        return False

    for line in sys.stdin:
        began = time.perf_counter()
        try:
            answer = obey(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the library raises what it likes; the answer is a no
            answer = False
            print(error, file=sys.stderr)
        say({"answer": answer, "took_s": time.perf_counter() - began})


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
    main(sys.argv[1:], scratch)
