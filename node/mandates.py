"""Whose node this is: the owner's key, or one that it has made an issuer, renews the mandate that the node acts under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted
from ..protocol.errors import Code, ConfigError, RemoteProtocolError, StoreError
from ..protocol.identity import Issuer, Mandate, check_current
from ..protocol.limits import ISSUER_BYTES_MAX, MANDATE_MS_MAX
from .config import Config
from .durable import put
from .keys import load_or_create

MANDATE = "mandate"
LOOK_S: Final = 3600.0
"""Between two looks whether it nears its end."""
RENEW_MS: Final = MANDATE_MS_MAX // 7
"""A mandate is renewed a day before it ends: a node that was asleep meanwhile still has a valid one."""


@dataclass(frozen=True)
class Authority:
    """Who is paid for this node's work, and the key on this machine that signs mandates in that owner's name."""

    owner: bytes
    key: SigningKey
    issuer: Signed[Issuer] | None = None
    """Absent if the key is the owner's own."""

    @classmethod
    def load(cls, config: Config, now_ms: int) -> Authority:
        """By the settings `owner_key` and `issuer`; a fresh owner key is made where there is none.

        Raises `ConfigError(bad_config)` for an issuer that is not one now, or of another key, and `StoreError`.
        """
        key = load_or_create(config.owner_key)
        if config.issuer is None:
            return cls(bytes(key.verify_key), key)
        issuer = _read_issuer(config.issuer)
        if issuer.record.issuer != bytes(key.verify_key):
            raise _bad(f"{config.issuer} is for another key than the one in {config.owner_key}")
        try:
            check_current(issuer.record.not_before_ms, issuer.record.expires_ms, now_ms, "issuer")
        except RemoteProtocolError:
            raise _bad(f"{config.issuer} is not valid at this time; its owner has to sign another") from None
        return cls(issuer.record.owner, key, issuer)


def current_mandate(config: Config, node: bytes, authority: Authority, now_ms: int) -> Signed[Mandate]:
    """This node's mandate, on disk: the one that is there, or a new one if that nears its end or is another's.

    Each new one is of a higher epoch, also where the old one was lost: two mandates of one node and epoch would be fraud.
    """
    path = config.state / MANDATE
    held = _held(path)
    record = Mandate(
        node,
        authority.owner,
        config.roles,
        max(now_ms, held.record.epoch + 1 if held else 0),
        now_ms,
        now_ms + MANDATE_MS_MAX,
        authority.issuer.envelope if authority.issuer else None,
    )
    if held and _says_the_same(held.record, record) and _lasts(held.record, now_ms):
        return held
    mandate = sign(record, authority.key)
    put(path, mandate.envelope)
    return mandate


async def keep_current(
    config: Config,
    node: bytes,
    authority: Authority,
    now_ms: Callable[[], int],
    give: Callable[[Signed[Mandate]], None],
) -> None:
    """Whoever is given it has a mandate that lasts, until cancelled."""
    while True:
        await trio.sleep(LOOK_S)
        give(current_mandate(config, node, authority, now_ms()))


def _says_the_same(one: Mandate, other: Mandate) -> bool:
    return (one.node, one.owner, one.roles, one.issuer) == (other.node, other.owner, other.roles, other.issuer)


def _lasts(mandate: Mandate, now_ms: int) -> bool:
    return mandate.not_before_ms <= now_ms < mandate.expires_ms - RENEW_MS


def _held(path: Path) -> Signed[Mandate] | None:
    if not path.exists():
        return None
    envelope = path.read_bytes()
    try:
        return verify_any_signer_untrusted(Mandate, envelope)
    except RemoteProtocolError as error:
        raise StoreError(Code.CORRUPT_STORE, f"The mandate in {path} does not hold: {error.message}") from None


def _read_issuer(path: Path) -> Signed[Issuer]:
    try:
        with path.open("rb") as stream:
            envelope = stream.read(ISSUER_BYTES_MAX + 1)
        issuer = verify_any_signer_untrusted(Issuer, envelope, bytes_max=ISSUER_BYTES_MAX)
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror}") from None
    except RemoteProtocolError as error:
        raise _bad(f"{path} is no issuer's record: {error.message.rstrip('.')}") from None
    if issuer.signer != issuer.record.owner:
        raise _bad(f"{path} is not signed by the owner that it names")
    return issuer


def _bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"Setting `issuer`: {problem}.")
