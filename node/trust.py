"""The trust list: which bundle a name stands for on this machine, and whose signature on it counts.

A name is not a claim. The list that ships with the package comes first; what the user wrote into their own
`trust.toml` replaces entries of the same name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from nacl.signing import SigningKey

from ..protocol.bundle import Manifest
from ..protocol.envelope import Signed
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from ..protocol.identity import cid_hash_untrusted
from . import private
from .durable import alone, put

FILE_NAME = "trust.toml"
HEAD = b"# Whom and what this machine trusts.\n"
OWN_PUBLISHER = "keys/publisher"
"""In the user's home for Fallow: the private key, in hex, of `fallow bundle build`."""


@dataclass(frozen=True, slots=True)
class TrustEntry:
    """`publisher` is trusted for the one bundle `cid`, which goes by `name` here."""

    name: str
    cid: str
    publisher: bytes

    def check(self, manifest: Signed[Manifest]) -> None:
        """Raises `ConfigError(bundle_untrusted)` unless the publisher has signed it."""
        if manifest.signer != self.publisher:
            raise ConfigError(
                Code.BUNDLE_UNTRUSTED, f"Bundle {self.name} is not signed by the publisher that the trust list names."
            )


@dataclass(frozen=True, slots=True)
class Deposit:
    """What an owner has locked to this machine's key, so that it can be relied on: `means` of a rail, in a file."""

    owner: bytes
    means: Path
    least_ucr: int
    """Less than that does not count."""


@dataclass(frozen=True, slots=True)
class TrustList:
    """What this machine trusts, by name."""

    entries: Mapping[str, TrustEntry]
    owners: Mapping[str, bytes] = field(default_factory=dict)
    """Owners of nodes to rely on, by the name that they have here: anchors of quorums."""
    deposits: tuple[Deposit, ...] = ()
    """Owners who count as anchors while what they have locked is there."""
    verifiers: Mapping[bytes, str] = field(default_factory=dict)
    """Where the verifiers of some of them are asked, by owner: full multiaddrs. These judge in disputes and committees."""

    @classmethod
    def load(cls, home: Path) -> TrustList:
        """The shipped list under the user's own. Raises `ConfigError(bad_config)` that names the file and the entry."""
        lists = [_read(source) for source in (_shipped(), home / FILE_NAME)]
        entries = {entry.name: entry for bundles, _ in lists for entry in bundles}
        known = [owner for _, owners in lists for owner in owners]
        verifiers = {key: address for _, key, address in known if address}
        return cls(entries, {name: key for name, key, _ in known}, _deposits(home), verifiers)

    def names(self) -> tuple[str, ...]:
        """Every name, sorted."""
        return tuple(sorted(self.entries))

    def resolve(self, name: str) -> TrustEntry:
        """The entry of a name or of a CID. Raises `ConfigError`: `unknown_name`, `bundle_untrusted` for a CID."""
        if name in self.entries:
            return self.entries[name]
        for entry in self.entries.values():
            if entry.cid == name:
                return entry
        if _is_cid(name):
            raise ConfigError(Code.BUNDLE_UNTRUSTED, f"No trust list has the bundle {name}.")
        known = ", ".join(self.names()) or "nothing"
        raise ConfigError(Code.UNKNOWN_NAME, f"No trust list knows {name!r}; here are {known}.")

    def trusts(self, manifest: Signed[Manifest], cid: str) -> bool:
        """Whether exactly this bundle, signed by exactly this publisher, is on the list."""
        named = cid_hash_untrusted(cid) == manifest.id
        return named and any(e.cid == cid and e.publisher == manifest.signer for e in self.entries.values())


def extend(home: Path, entry: Callable[[], str]) -> Path:
    """What `entry` gives (TOML) stands at the end of the user's own list, as a whole, whenever the power fails; nothing, and it
    is left as it is. Nobody else changes it from when `entry` is called: it may look at the list first. Blocks.

    Raises `OSError`, and what `entry` raises.
    """
    private.folder(home)
    path = (home / FILE_NAME).resolve()
    with alone(path):
        if text := entry():
            before = path.read_bytes() if path.exists() else HEAD
            put(path, before + b"\n" * (not before.endswith(b"\n")) + text.encode())
    return home / FILE_NAME


def is_foreign(home: Path, manifest: Signed[Manifest]) -> bool:
    """Whether a stranger made it: neither the publishers of the package's own list nor this machine signed it."""
    publishers = {entry.publisher for entry in _read(_shipped())[0]}
    return manifest.signer not in publishers | _own_publisher(home)


def _own_publisher(home: Path) -> set[bytes]:
    """The key that signs what is built here. None, or none that can be read: then nothing counts as made here."""
    try:
        seed = bytes.fromhex((home / OWN_PUBLISHER).read_text())
        return {bytes(SigningKey(seed).verify_key)}
    except (OSError, ValueError):
        return set()


def _shipped() -> Traversable:
    # As a file of the package `fallow`: reading it through `fallow.client` would import the client.
    return resources.files("fallow").joinpath("client", FILE_NAME)


def _read(where: Traversable) -> tuple[list[TrustEntry], list[tuple[str, bytes, str]]]:
    """The bundles and the owners of one list; a list that is not there has none."""
    whole = _whole(where)
    bundles = [_entry(*one) for one in _tables(where, whole, "bundle")]
    return bundles, [_owner(*one) for one in _tables(where, whole, "owner")]


def _whole(where: Traversable) -> Mapping[str, object]:
    try:
        return tomllib.loads(where.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"Cannot read {where}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Code.BAD_CONFIG, f"{where} is not TOML: {error}.") from None


def _tables(where: Traversable, whole: Mapping[str, object], kind: str) -> Iterable[tuple[str, object]]:
    """Each table of this kind, and how a person finds it."""
    tables = whole.get(kind, [])
    if not isinstance(tables, list):
        raise ConfigError(Code.BAD_CONFIG, f"{where}: `{kind}` must be a list of tables ([[{kind}]]).")
    return [(f"{where}, {kind} {index + 1}", table) for index, table in enumerate(tables)]


def _owner(where: str, table: object) -> tuple[str, bytes, str]:
    """Name, key, and where their verifier is asked; empty if that is not said."""
    match table:
        case {"name": str(name), "key": str(text), "verifier": str(address)}:
            pass
        case {"name": str(name), "key": str(text), **more} if "verifier" not in more:
            address = ""
        case _:
            raise ConfigError(Code.BAD_CONFIG, f"{where}: name and key must be there, and all text.")
    key = _key(text)
    if key is None:
        raise ConfigError(Code.BAD_CONFIG, f"{where}: key must be an owner's public key, of 64 hex digits.")
    return name, key, address


def _deposits(home: Path) -> tuple[Deposit, ...]:
    """Of the user's own list alone: nobody else can say what would do for them."""
    where = home / FILE_NAME
    return tuple(_deposit(home, *one) for one in _tables(where, _whole(where), "deposit"))


def _deposit(home: Path, where: str, table: object) -> Deposit:
    match table:
        case {"owner": str(text), "means": str(means), "least_ucr": int(least), **more} if least > 0 and not more:
            key = _key(text)
        case _:
            raise ConfigError(
                Code.BAD_CONFIG,
                f"{where}: owner, means (a file) and least_ucr (above 0) must be there, and nothing else.",
            )
    if key is None:
        raise ConfigError(Code.BAD_CONFIG, f"{where}: owner must be an owner's public key, of 64 hex digits.")
    return Deposit(key, home / means, least)


def _key(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == 32 else None


def _entry(where: str, table: object) -> TrustEntry:
    match table:
        case {"name": str(name), "cid": str(cid), "publisher": str(publisher)}:
            pass
        case _:
            raise ConfigError(Code.BAD_CONFIG, f"{where}: name, cid and publisher must be there, all text.")
    key = _key(publisher)
    if key is None or not _is_cid(cid):
        raise ConfigError(Code.BAD_CONFIG, f"{where}: cid must be a content id, publisher a key of 64 hex digits.")
    return TrustEntry(name, cid, key)


def _is_cid(text: str) -> bool:
    try:
        cid_hash_untrusted(text)
    except RemoteProtocolError:
        return False
    return True
