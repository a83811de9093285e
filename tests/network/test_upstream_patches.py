"""The patches of `spec/upstream` apply to the release that is used here, and mend what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import libp2p
import pytest

PATCHES = sorted((Path(__file__).parents[2] / "spec/upstream").glob("*.patch"))
UPSTREAM = Path(libp2p.__file__).parent

PROGRAM = """
import inspect
import trio
from multiaddr import Multiaddr
from trio.testing import wait_all_tasks_blocked
import libp2p
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import PeerInfo
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.stream_muxer.yamux.yamux import Yamux

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")
mended = set()

class Own(Yamux):
    pass

class Bytes:
    content = b"\\x03\\xff\\xfe\\n"

    async def read(self, count):
        taken, self.content = self.content[:count], self.content[count:]
        return taken

async def main():
    server = new_host(
        key_pair=create_new_key_pair(b"1" * 32), listen_addrs=[LOOPBACK], muxer_opt={TProtocol("/yamux/1.0.0"): Own}
    )
    offered = map(str, server.get_network().upgrader.security_multistream.transports)
    if not any("plaintext" in name for name in offered):
        mended.add("plaintext")
    client = new_host(key_pair=create_new_key_pair(b"2" * 32))

    async def fail(stream):
        raise ZeroDivisionError

    async def fine(stream):
        await stream.write(b"fine")

    server.set_stream_handler(TProtocol("/test/fail"), fail)
    server.set_stream_handler(TProtocol("/test/fine"), fine)
    async with server.run(listen_addrs=[LOOPBACK]), client.run(listen_addrs=[]):
        await client.connect(PeerInfo(server.get_id(), server.get_addrs()))
        if "cancel_scope.cancel()" in inspect.getsource(Swarm.dial_peer):
            mended.add("happy-eyeballs")
        await client.new_stream(server.get_id(), [TProtocol("/test/fail")])
        stream = await client.new_stream(server.get_id(), [TProtocol("/test/fine")])
        if await stream.read(4) == b"fine":
            mended.add("handler")
        [connection] = server.get_network().get_connections()
        if type(connection.muxed_conn) is Own:
            mended.add("muxer-class")
        await client.close()
        await server.close()
    try:
        await MultiselectCommunicator(Bytes()).read()
    except MultiselectCommunicatorError:
        mended.add("multistream-utf8")
    relay = client.get_id()
    way = Multiaddr(f"/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit")
    behind = new_host(key_pair=create_new_key_pair(b"3" * 32), addrs_factory=lambda listening: [way])
    if [str(each) for each in behind.get_addrs()] == [f"{way}/p2p/{behind.get_id()}"]:
        mended.add("circuit-addresses")

    class Nobody:
        async def find_closest_peers_network(self, key):
            mended.add("provider-store")
            return []

    providers = ProviderStore(behind, Nobody())
    providers.add_provider(b"key", PeerInfo(relay, [LOOPBACK]))
    assert [each.peer_id for each in await providers.find_providers(b"key")] == [relay]
    if "msg.peer.id" not in inspect.getsource(CircuitV2Protocol._handle_reserve):
        mended.add("reserve")

    class Stays:
        begun = 0

        async def close(self):
            Stays.begun += 1
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        behind.get_network().connections = {relay: [Stays(), Stays()]}
        nursery.start_soon(behind.get_network().close)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    if Stays.begun == 2:
        mended.add("swarm-close")

async def bounded():
    with trio.fail_after(30):
        await main()

trio.run(bounded)
print(libp2p.__file__, *sorted(mended))
"""


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs the program patch")
def test_every_patch_applies_and_mends_what_it_says(tmp_path) -> None:
    shutil.copytree(UPSTREAM, tmp_path / "libp2p", ignore=shutil.ignore_patterns("__pycache__"))
    for path in PATCHES:
        command = ["patch", "-p1", "--fuzz=0", "--quiet", "-d", str(tmp_path), "-i", str(path)]
        subprocess.run(command, check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert not done.returncode, done.stderr[-4000:]
    file, *mended = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert mended == sorted(path.stem.partition("-")[2] for path in PATCHES)
