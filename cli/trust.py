"""`fallow trust`: which bundle a name stands for on this machine."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.trust import TrustList, extend
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from ..protocol.identity import cid_hash_untrusted
from .environment import AsJson, usable_home
from .output import Json, print_json, remark, table


def add(
    cid: str,
    /,
    *,
    name: Annotated[str, Parameter(help="What to call it here.")],
    publisher: Annotated[str, Parameter(help="The publisher's key, 64 hex digits.")],
    json: AsJson = False,
) -> None:
    """`name` stands for the bundle from now on; an older entry of that name no longer counts."""
    _require_cid(cid)
    if len(publisher) != 64 or not set(publisher.lower()) <= set("0123456789abcdef"):
        raise ConfigError(Code.BAD_CONFIG, "--publisher must be a key of 64 hex digits.")
    text = f'\n[[bundle]]\nname = {json_text.dumps(name)}\ncid = "{cid}"\npublisher = "{publisher.lower()}"\n'
    path = _append(name, text)
    entry = TrustList.load(default_home()).resolve(name)
    if json:
        print_json({"name": entry.name, "cid": entry.cid, "publisher": entry.publisher.hex(), "file": str(path)})
    else:
        remark(f"{name} now stands for {cid}, by {publisher[:8]}... ({path})")


def owner(
    key: str,
    /,
    *,
    name: Annotated[str, Parameter(help="What to call them here.")],
    verifier: Annotated[
        str | None, Parameter(help="Where their verifier is asked: the multiaddr that `fallow verifier run` prints.")
    ] = None,
    json: AsJson = False,
) -> None:
    """The owner counts as an anchor of quorums from now on, and, with --verifier, as a judge where a node accepts them, too."""
    if len(key) != 64 or not set(key.lower()) <= set("0123456789abcdef"):
        raise ConfigError(Code.BAD_CONFIG, "An owner's key has 64 hex digits; `fallow owner show` prints one.")
    where = f"verifier = {json_text.dumps(verifier)}\n" if verifier else ""
    path = _append(name, f'\n[[owner]]\nname = {json_text.dumps(name)}\nkey = "{key.lower()}"\n{where}')
    if json:
        print_json({"name": name, "owner": key.lower(), "file": str(path)})
    else:
        remark(f"{name} is now somebody to rely on: owner {key[:8]}... ({path})")


def list_(*, json: AsJson = False) -> None:
    """The names of the list that ships with the package and of this user's own."""
    trust = TrustList.load(default_home())
    entries = [trust.resolve(name) for name in trust.names()]
    if json:
        bundles: Json = [{"name": e.name, "cid": e.cid, "publisher": e.publisher.hex()} for e in entries]
        owners: Json = [{"name": name, "key": key.hex()} for name, key in sorted(trust.owners.items())]
        print_json({"bundles": bundles, "owners": owners})
    elif entries or trust.owners:
        table(("name", "publisher", "cid"), [(e.name, e.publisher.hex()[:16], e.cid) for e in entries])
        if trust.owners:
            table(("name", "owner"), [(name, key.hex()) for name, key in sorted(trust.owners.items())])
    else:
        remark("No bundle is trusted here yet. `fallow bundle build NAME` or `fallow trust add` change that.")


def _append(name: str, text: str) -> Path:
    """The entry of this name stands at the list's end."""
    if not name or len(name.encode()) > 64 or not name.isprintable():
        raise ConfigError(Code.BAD_CONFIG, "--name must be 1 to 64 printable characters.")
    home = default_home()

    def entry() -> str:
        TrustList.load(home)  # do not write behind what cannot be read
        return text

    with usable_home():
        return extend(home, entry)


def _require_cid(cid: str) -> None:
    try:
        cid_hash_untrusted(cid)
    except RemoteProtocolError:
        raise ConfigError(
            Code.BAD_CONFIG, f"{cid[:80]!r} is not a bundle's CID (bafkr4i...); `fallow bundle inspect NAME` shows one."
        ) from None
