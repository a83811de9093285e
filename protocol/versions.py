"""The names under which streams are opened, and which version two peers speak.

A stream's protocol is `/fallow/<service>/<version>`; a version is a number from 1 up. What an older reader may overlook is
added within a version (see `schema`); everything else is a new one. A server offers every version that it speaks, a client
proposes its own newest first, and the newest that both speak is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import Code, RemoteProtocolError

_NAME: Final = re.compile(r"/fallow/([a-z]{1,16})/([1-9][0-9]{0,3})", re.ASCII)


def protocol_id(service: str, version: int) -> str:
    """The name of a service's version on the wire."""
    return f"/fallow/{service}/{version}"


def negotiate_untrusted(service: str, ours: Iterable[str], theirs: Iterable[str]) -> str:
    """The newest version of `service` that both speak; names of anything else are passed over.

    What multistream-select comes to, where a client proposes its newest first: for whoever chooses from two lists.
    Raises `RemoteProtocolError(protocol_unsupported)` if there is none.
    """
    common = _versions(service, ours) & _versions(service, theirs)
    if not common:
        raise RemoteProtocolError(
            Code.PROTOCOL_UNSUPPORTED, f"The peer speaks no version of {service!r} that we speak."
        )
    return protocol_id(service, max(common))


def _versions(service: str, names: Iterable[str]) -> set[int]:
    matches = map(_NAME.fullmatch, names)
    return {int(match[2]) for match in matches if match and match[1] == service}
