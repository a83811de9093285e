"""This computer itself: its battery, temperatures and user from the kernel's files, its accelerators from NVML, and UPower's
word, which comes at once, that its plug was pulled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import trio
from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Properties, message_bus
from jeepney.auth import AuthenticationError
from jeepney.io.trio import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from ..rules.signals import Signal, Value
from .config import Host
from .feed import Feed, SensorError
from .nvml import Nvml, NvmlError, opened
from .sysfs import batteries, temperatures, user_idle

UPOWER: Final = "org.freedesktop.UPower"
UPOWER_PATH: Final = "/org/freedesktop/UPower"
RETRY_S: Final = 30.0
BUS: Final = "SYSTEM"


async def read_host(config: Host, feed: Feed) -> None:
    """The computer's signals reach the feed every `interval_s`, and a pulled plug at once. Raises `SensorError`."""
    with opened(config.nvml) as nvml:
        async with trio.open_nursery() as nursery:
            if config.upower:
                nursery.start_soon(_watch_upower, feed)
            while True:
                found = dict(await feed.ask(lambda: list(_all(config, nvml))))
                feed.expect({*feed.board.expects[feed.source], *found})
                feed.take(found.items())
                await trio.sleep(config.interval_s)


def _all(config: Host, nvml: Nvml | None) -> Iterator[tuple[Signal, Value]]:
    """Raises `SensorError` where accelerators that were there do not answer any more."""
    yield from batteries(config.sys_root)
    yield from temperatures(config.sys_root)
    if config.user:
        yield from user_idle(config.input_root)
    if nvml:
        yield from accelerators(nvml)


def accelerators(nvml: Nvml) -> Iterator[tuple[Signal, Value]]:
    """The hottest one, and what all draw. Raises `SensorError`."""
    try:
        found = nvml.read()
    except NvmlError as error:
        raise SensorError(str(error)) from None
    if degrees := [each.celsius for each in found if each.celsius is not None]:
        yield Signal.ACCELERATOR_C, max(degrees)
    if watts := [each.watts for each in found if each.watts is not None]:
        yield Signal.ACCELERATOR_W, sum(watts)


async def _watch_upower(feed: Feed) -> None:
    """`OnBattery` as UPower signals it. Where there is no UPower the kernel's files say the same, a little later."""
    while True:
        try:
            async with await open_dbus_connection(BUS) as connection:
                await _follow(connection, feed)
        except (OSError, AuthenticationError, KeyError, trio.BrokenResourceError, trio.EndOfChannel, DBusErrorResponse):
            pass
        await trio.sleep(RETRY_S)


async def _follow(connection: DBusConnection, feed: Feed) -> None:
    what = {"interface": "org.freedesktop.DBus.Properties", "member": "PropertiesChanged", "path": UPOWER_PATH}
    changes = MatchRule(type="signal", **what)
    await _ask(connection, message_bus.AddMatch(MatchRule(type="signal", sender=UPOWER, **what)))
    asked = Properties(DBusAddress(UPOWER_PATH, bus_name=UPOWER, interface=UPOWER)).get("OnBattery")
    _take_untrusted(dict(zip(["OnBattery"], await _ask(connection, asked), strict=False)), feed)
    while True:
        message = await connection.receive()
        if changes.matches(message):
            feed.hear()
            match message.body:
                case (str(interface), dict(changed), *_) if interface == UPOWER:
                    _take_untrusted(changed, feed)


def _take_untrusted(changed: Mapping[str, object], feed: Feed) -> None:
    """`OnBattery` counts, if it is among the properties, and true or false: a variant is its signature and its value."""
    match changed.get("OnBattery"):
        case ("b", bool(value)):
            feed.expect({*feed.board.expects[feed.source], Signal.ON_BATTERY})
            feed.take([(Signal.ON_BATTERY, value)])


async def _ask(connection: DBusConnection, question: Any) -> Any:
    serial = next(connection.outgoing_serial)
    await connection.send(question, serial=serial)
    while True:
        message = await connection.receive()
        if message.header.fields.get(HeaderFields.reply_serial) == serial:
            return unwrap_msg(message)
