"""Who signs a bundle that is built here, and how this machine comes to trust it."""

from __future__ import annotations

import json
import os
import tomllib
from importlib.resources import files
from pathlib import Path

from nacl.encoding import HexEncoder
from nacl.signing import SigningKey

from ..node.engine.bundles import Bundle
from ..node.trust import FILE_NAME, OWN_PUBLISHER, extend
from ..protocol.bundle import Manifest
from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted
from ..protocol.identity import cid
from ..protocol.limits import MANIFEST_BYTES_MAX


def sign_at(home: Path, manifest: Manifest) -> Signed[Manifest]:
    """The manifest in the envelope that the package ships, if it is exactly that one; else signed by this machine.

    The machine's key is `<home>/keys/publisher`, made when first needed.
    """
    shipped = published(manifest.name)
    if shipped is not None and shipped.record == manifest:
        return shipped
    return sign(manifest, key_at(home / OWN_PUBLISHER))


def published(name: str) -> Signed[Manifest] | None:
    """The manifest that the package ships for `name`, if any. Its signer is trusted as the rest of the package is."""
    resource = files(__package__) / "published" / f"{name}.manifest"
    if not resource.is_file():
        return None
    return verify_any_signer_untrusted(Manifest, resource.read_bytes(), bytes_max=2 * MANIFEST_BYTES_MAX)


def trust_on_this_machine(home: Path, bundle: Bundle) -> None:
    """The bundle's name stands for it on this machine: by the package's own list, or by `<home>/trust.toml`.

    In the latter a later entry replaces an earlier one, and every one replaces the package's.
    """
    name = bundle.manifest.name

    def entry() -> str:
        path = home / FILE_NAME
        listed = tomllib.loads(path.read_text("utf-8")).get("bundle", []) if path.exists() else []
        own = [each for each in listed if each.get("name") == name]
        shipped = published(name)
        trusted = own[-1].get("cid") if own else shipped and cid(shipped.id)
        return "" if trusted == bundle.cid else trust_entry(name, bundle.cid, bundle.signed.signer)

    extend(home, entry)


def trust_entry(name: str, bundle_cid: str, publisher: bytes) -> str:
    """One entry of a trust list, in TOML."""
    return f'\n[[bundle]]\nname = {json.dumps(name)}\ncid = "{bundle_cid}"\npublisher = "{publisher.hex()}"\n'


def key_at(path: Path) -> SigningKey:
    """The private key in `path`, 64 hex digits; a new one, readable by its owner only, if there is none."""
    if path.exists():
        return SigningKey(path.read_text().strip().encode(), HexEncoder)
    key = SigningKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(key.encode(HexEncoder).decode() + "\n")
    return key
