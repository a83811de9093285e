"""What kind of link this machine is on, and whether it is metered: NetworkManager's word, over the system's D-Bus.

Where there is no NetworkManager, or it does not answer, nothing is known, and why is said. A reading is never older than
`POLL_S` and the time for one question.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import trio
from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Message, Properties, message_bus
from jeepney.auth import AuthenticationError
from jeepney.io.common import RouterClosed
from jeepney.io.trio import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

SYSTEM: Final = "SYSTEM"
"""The system's bus: `DBUS_SYSTEM_BUS_ADDRESS`, or where it always is."""
POLL_S: Final = 60.0
"""Read anew though nothing was signalled: NetworkManager may have been restarted."""
RETRY_S: Final = 30.0
"""After there was no bus, or no NetworkManager on it."""
READ_S: Final = 5.0
"""For one reading: a bus that is frozen must not leave an old one standing."""

_NAME: Final = "org.freedesktop.NetworkManager"
_ROOT: Final = "/org/freedesktop/NetworkManager"
_KINDS: Final = {
    1: "ethernet",
    2: "wifi",
    5: "bluetooth",
    8: "cellular",
    11: "ethernet",
    13: "ethernet",
    16: "vpn",
    29: "vpn",
}
"""NMDeviceType: also a VLAN or a bridge is wire to whoever uses it."""
_METERED: Final = {1: True, 2: False, 3: True, 4: False}
"""NMMetered: yes, no, and two that NetworkManager guessed; 0 is unknown."""


@dataclass(frozen=True, slots=True)
class Link:
    """The default route's link."""

    kinds: tuple[str, ...] = ()
    metered: bool | None = None
    why: str = ""
    """Why nothing is known, for the owner."""


UNKNOWN: Final = Link(why="it has not been looked for yet")


async def watch(on_link: Callable[[Link], None], bus: str = SYSTEM) -> None:
    """`on_link` is told of each reading that is another than the one before, until cancelled."""
    before: Link | None = None

    def tell(link: Link) -> None:
        nonlocal before
        if link != before:
            before = link
            on_link(link)

    while True:
        try:
            with trio.fail_after(READ_S):
                connection = await open_dbus_connection(bus)
            async with connection:
                await _follow(_Bus(connection), tell)
        except (OSError, AuthenticationError, KeyError, RouterClosed, trio.TooSlowError, *_GONE):
            why = "the system's D-Bus does not answer, or its NetworkManager"
        except DBusErrorResponse:
            why = "NetworkManager does not run here"
        tell(Link(why=why))
        await trio.sleep(RETRY_S)


_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_NEWS: Final = MatchRule(
    type="signal", interface="org.freedesktop.DBus.Properties", member="PropertiesChanged", path=_ROOT
)


class _Bus:
    """One connection, on which one question at a time is asked. (jeepney's own router ends with a `RuntimeError` if it is
    cancelled while it filters signals: jeepney 0.9.0, io/trio.py:370.)"""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._news = False

    async def ask(self, question: Message) -> Any:
        """The reply's body. Raises `DBusErrorResponse` for an error, and one of `_GONE`."""
        serial = next(self._connection.outgoing_serial)
        await self._connection.send(question, serial=serial)
        while True:
            message = await self._connection.receive()
            if message.header.fields.get(HeaderFields.reply_serial) == serial:
                return unwrap_msg(message)
            self._news = self._news or _NEWS.matches(message)

    async def news(self) -> None:
        """NetworkManager's own properties have changed since the last time."""
        while not self._news:
            self._news = _NEWS.matches(await self._connection.receive())
        self._news = False

    async def properties(self, path: str, interface: str) -> dict[str, Any]:
        """All of one object's. Raises `DBusErrorResponse` if it is not there."""
        address = DBusAddress(path, bus_name=_NAME, interface=interface)
        (found,) = await self.ask(Properties(address).get_all())
        return {name: value for name, (_, value) in found.items()}


async def _follow(bus: _Bus, tell: Callable[[Link], None]) -> None:
    """Raises when the bus or NetworkManager has gone, or is silent."""
    with trio.fail_after(READ_S):
        await bus.ask(message_bus.AddMatch(_NEWS))
    while True:
        with trio.fail_after(READ_S):
            tell(await _read(bus))
        with trio.move_on_after(POLL_S):
            await bus.news()


async def _read(bus: _Bus) -> Link:
    manager = await bus.properties(_ROOT, _NAME)
    kinds: dict[str, None] = {}
    primary = str(manager.get("PrimaryConnection", "/"))
    if primary != "/":
        with suppress(DBusErrorResponse):  # it has just gone: a signal follows
            active = await bus.properties(primary, f"{_NAME}.Connection.Active")
            for device in active.get("Devices", ()):
                found = await bus.properties(str(device), f"{_NAME}.Device")
                kinds[_KINDS.get(int(found.get("DeviceType", 0)), "other")] = None
    return Link(tuple(kinds), _METERED.get(int(manager.get("Metered", 0))))
