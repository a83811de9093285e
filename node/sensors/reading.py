"""Which adapter reads a sensor. Each is loaded only where one is set up."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

from .config import Host, Rosbridge, Scripted, SensorConfig, Site, Viss
from .feed import Feed, keep


async def read(config: SensorConfig, feed: Feed) -> NoReturn:
    """The sensor's readings reach the feed, and why they do not, until cancelled."""
    match config:
        case Viss():
            from .viss import read_viss

            await keep(feed, partial(read_viss, config))
        case Rosbridge():
            from .rosbridge import read_rosbridge

            await keep(feed, partial(read_rosbridge, config))
        case Host():
            from .host import read_host

            await keep(feed, partial(read_host, config))
        case Site():
            from .site import read_site

            await keep(feed, partial(read_site, config))
        case Scripted():
            from .scripted import read_day

            await keep(feed, partial(read_day, config))
