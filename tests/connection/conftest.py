"""Nodes in this process, a bus with NetworkManager on it, and a dish: each speaks its real protocol over real sockets."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.trio import DBusConnection, open_dbus_connection
from jeepney.low_level import Parser
from nacl.signing import SigningKey

from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Validator

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
VALIDATOR = Validator(lambda key, value: None, lambda key, values: 0)
MANAGER = "/org/freedesktop/NetworkManager"


async def hold(context: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """The context stays entered, in a task of its own, until the test ends."""
    async with context as entered:
        task_status.started(entered)
        await trio.sleep_forever()


def key_of(number: int) -> SigningKey:
    return SigningKey(hashlib.sha256(b"a connected node %d" % number).digest())


Join = Callable[..., Awaitable[Mesh]]


@pytest.fixture
def join(nursery: trio.Nursery) -> Join:
    """A node of its own in this process: `await join(1)`, joined by the addresses if there are any."""

    async def join(number: int, bootstrap: Sequence[str] = ()) -> Mesh:
        with trio.fail_after(30):
            network = open_network(bytes(key_of(number)), [LOOPBACK], bootstrap, VALIDATOR)
            mesh: Mesh = await nursery.start(hold, network)
        return mesh

    return join


@dataclass
class NetworkManager:
    """Its objects, as the bus shows them; `objects` and what is in them may be changed at any time."""

    metered: int = 2
    devices: dict[str, int] = field(default_factory=lambda: {"eth0": 1})
    answers: bool = True
    told: list[str] = field(default_factory=list)

    def answer(self, message: Message) -> Message | None:
        fields = message.header.fields
        assert (fields[HeaderFields.interface], fields[HeaderFields.member]) == (
            "org.freedesktop.DBus.Properties",
            "GetAll",
        )
        if not self.answers:
            return None
        (interface,) = message.body
        self.told.append(fields[HeaderFields.path])
        name = "org.freedesktop.NetworkManager"
        active = f"{MANAGER}/ActiveConnection/1"
        match interface.removeprefix(name), fields[HeaderFields.path]:
            case "", path if path == MANAGER:
                found = {"Metered": ("u", self.metered), "PrimaryConnection": ("o", active if self.devices else "/")}
            case ".Connection.Active", path if path == active:
                found = {"Devices": ("ao", [f"{MANAGER}/Devices/{each}" for each in self.devices])}
            case ".Device", path if (device := path.rpartition("/")[2]) in self.devices:
                found = {"DeviceType": ("u", self.devices[device])}
            case _:
                return new_error(message, "org.freedesktop.DBus.Error.UnknownObject")
        return new_method_return(message, "a{sv}", (found,))

    def news(self) -> Message:
        properties = DBusAddress(MANAGER, interface="org.freedesktop.DBus.Properties")
        changed = ("org.freedesktop.NetworkManager", {"Metered": ("u", self.metered)}, [])
        return new_signal(properties, "PropertiesChanged", "sa{sv}as", changed)


@dataclass
class Bus:
    """A bus at an address, and who is on it."""

    address: str
    manager: NetworkManager
    signal: Callable[[], Awaitable[None]]


@asynccontextmanager
async def own_bus(folder: Path, manager: Any = None) -> AsyncIterator[Bus]:
    """A bus of our own: it authenticates, says hello, and hands all else to NetworkManager, or whom it is given."""
    path, manager = folder / "bus", manager or NetworkManager()
    serials = count(1)
    streams: list[trio.SocketStream] = []
    sending = trio.Lock()

    async def send(stream: trio.SocketStream, message: Message) -> None:
        message.header.fields[HeaderFields.sender] = ":1.1"
        async with sending:
            await stream.send_all(message.serialise(next(serials)))

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            parser = Parser()
            parser.add_data(await _authenticated(stream))
            streams.append(stream)
            while True:
                while (message := parser.get_next_message()) is not None:
                    to_bus = message.header.fields[HeaderFields.destination] == "org.freedesktop.DBus"
                    reply = _of_the_bus(message) if to_bus else manager.answer(message)
                    if reply is not None:
                        await send(stream, reply)
                if not (read := await stream.receive_some()):
                    streams.remove(stream)
                    return
                parser.add_data(read)

    async def signal() -> None:
        for stream in streams:
            await send(stream, manager.news())

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
        yield Bus(f"unix:path={path}", manager, signal)
        nursery.cancel_scope.cancel()


async def _authenticated(stream: trio.SocketStream) -> bytes:
    """The client has proven who it is, and this is what it sent after that."""
    received = b""
    while b"\r\n" not in received:
        received += await stream.receive_some()
    assert received.startswith(b"\0AUTH EXTERNAL "), received
    await stream.send_all(b"OK 00000000000000000000000000000000\r\n")
    rest = received.partition(b"\r\n")[2]
    while not rest.startswith(b"BEGIN\r\n"):
        rest += await stream.receive_some()
    return rest.removeprefix(b"BEGIN\r\n")


def _of_the_bus(message: Message) -> Message:
    if message.header.fields[HeaderFields.member] == "Hello":
        return new_method_return(message, "s", (":1.2",))
    assert message.header.fields[HeaderFields.member] == "AddMatch"
    return new_method_return(message)


@asynccontextmanager
async def real_bus(folder: Path) -> AsyncIterator[Bus]:
    """The real daemon, with our NetworkManager on it under its real name."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address", f"--address=unix:path={folder / 'bus'}"]
    daemon = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        address = (await daemon.stdout.receive_some()).decode().strip()
        manager = NetworkManager()
        connection = await open_dbus_connection(address)
        async with connection:
            async with connection.router() as router:
                await router.send_and_get_reply(message_bus.RequestName("org.freedesktop.NetworkManager"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_answer, connection, manager)

                async def signal() -> None:
                    await connection.send(manager.news())

                yield Bus(address, manager, signal)
                nursery.cancel_scope.cancel()
    finally:
        daemon.kill()
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await daemon.wait()
            assert daemon.stdout is not None
            await daemon.stdout.aclose()


async def _answer(connection: DBusConnection, manager: NetworkManager) -> None:
    with suppress(trio.ClosedResourceError):
        while True:
            message = await connection.receive()
            is_call = message.header.message_type is MessageType.method_call
            if is_call and (reply := manager.answer(message)):
                await connection.send(reply)


@pytest.fixture(params=["own", "real"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery) -> Bus:
    """A system bus with NetworkManager on it: of our own, and the real daemon where it is installed."""
    if request.param == "real" and not shutil.which("dbus-daemon"):
        pytest.skip("dbus-daemon is not installed")
    with trio.fail_after(20):
        opened: Bus = await nursery.start(hold, (own_bus if request.param == "own" else real_bus)(tmp_path))
    return opened
