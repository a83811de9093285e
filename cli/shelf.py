"""`fallow bundle`: what this machine's store keeps, gives away in one file, and takes in from one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node.config import BYTES_MAX, default_home, load
from ..node.engine.archive import export_bundle, import_bundle
from ..node.engine.bundles import Bundle, BundleStore, length_bytes
from ..node.engine.sizes import MIB
from ..node.engine.upkeep import make_room, sweep
from ..node.engine.upkeep import pin as pin_bundle
from ..node.engine.upkeep import remove as remove_bundle
from ..node.engine.upkeep import unpin as unpin_bundle
from ..node.trust import TrustList
from ..protocol.errors import Code, ConfigError
from .bundle import find, mib, store_here, trusted
from .environment import AsJson, usable, usable_home
from .output import Json, line, print_json, progress, remark

Name = Annotated[str, Parameter(help="A bundle's name or CID.")]
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def pin(name: Name, /, *, json: AsJson = False) -> None:
    """The bundle stays, however little room there is, until it is unpinned; nodes here share it, trusted or not."""
    store, bundle = _found(name)
    with usable_home():
        pin_bundle(store, bundle.cid)
    _say(bundle, json, "pinned")


def unpin(name: Name, /, *, json: AsJson = False) -> None:
    """The bundle may go when room is needed."""
    store, bundle = _found(name)
    with usable_home():
        unpin_bundle(store, bundle.cid)
    _say(bundle, json, "unpinned")


def remove(name: Name, /, *, json: AsJson = False) -> None:
    """The bundle is no longer on this machine. One that a running node uses is left."""
    store, bundle = _found(name)
    with usable_home():
        gone = remove_bundle(store, bundle)
    if not gone:
        raise ConfigError(Code.ALREADY_RUNNING, f"A running node uses {bundle.manifest.name}; it was not removed.")
    _say(bundle, json, "removed")


def gc(
    *,
    to: Annotated[str | None, Parameter(help="How large the store may be, as 20GB; else only leftovers go.")] = None,
    config: Annotated[Path | None, Parameter(help="A node's settings, for its `store` and `store_bytes_max`.")] = None,
    json: AsJson = False,
) -> None:
    """Leftovers of killed processes go, then the bundles used longest ago. Pinned ones and those in use stay."""
    settings = load(config) if config else None
    store = BundleStore(settings.store) if settings else store_here()
    bytes_max = bytes_of(to) if to is not None else settings.store_bytes_max if settings else 0
    with usable_home():
        swept = sweep(store)
        removed = make_room(store, 0, bytes_max) if bytes_max else []
    freed = swept + sum(length_bytes(bundle.manifest) for bundle in removed)
    if json:
        print_json({"freed_bytes": freed, "removed": [bundle.cid for bundle in removed]})
        return
    for bundle in removed:
        line(f"removed {bundle.manifest.name}  {bundle.cid}  {mib(bundle):.0f} MiB")
    remark(f"{freed / MIB:.0f} MiB are free again.")


def export(name: Name, file: Annotated[Path, Parameter(help="What to write.")], /, *, json: AsJson = False) -> None:
    """The bundle is in one file; the same bundle makes the same file everywhere."""
    _, bundle = _found(name)
    with progress(f"writing {mib(bundle):.0f} MiB") as show, usable("FILE", file):
        step = _Step(f"writing {file.name}", length_bytes(bundle.manifest), show)
        size = export_bundle(bundle, file, step)
    if json:
        print_json({"name": bundle.manifest.name, "cid": bundle.cid, "file": str(file), "bytes": size})
    else:
        line(f"{file}  {size} bytes  {bundle.cid}")


def import_(
    file: Annotated[Path, Parameter(help="What `fallow bundle export` has written.")], /, *, json: AsJson = False
) -> None:
    """The bundle in the file is in this machine's store, every chunk checked. It is not trusted by that."""
    with progress(f"reading {file.name}") as show, usable("FILE", file):
        size = file.stat().st_size
        bundle = import_bundle(store_here(), file, on_chunk=_Step(f"reading {file.name}", size, show))
    arrived(bundle, json, {"file": str(file)})


def arrived(bundle: Bundle, json: bool, more: Mapping[str, Json]) -> None:
    """Says what has come, and what is still to be done before it is used."""
    trust = TrustList.load(default_home())
    if json:
        print_json(
            {"name": bundle.manifest.name, "cid": bundle.cid, "trusted": trusted(bundle, trust) == "yes", **more}
        )
        return
    line(f"{bundle.manifest.name}  {bundle.cid}")
    if trusted(bundle, trust) == "no":
        remark(
            "It is not trusted here. Whoever has convinced themselves of its publisher says so by\n"
            f"  fallow trust add {bundle.cid} --name NAME --publisher {bundle.signed.signer.hex()}"
        )


def bytes_of(text: str) -> int:
    """`20GB`, `500 MiB` or a number of bytes. Raises `ConfigError(bad_config)`."""
    said = re.fullmatch(r"(\d{1,15})\s*([a-z]*)", text.strip().lower())
    if not said or said[2] not in UNITS or not 0 < (size := int(said[1]) * UNITS[said[2]]) <= BYTES_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"{text[:40]!r} is no size; write 20GB, or 500MiB.")
    return size


class _Step:
    """Shows how much of a file has been moved."""

    def __init__(self, stage: str, total_bytes: int, show: Callable[[str, float | None], None]) -> None:
        self._stage = stage
        self._total = max(1, total_bytes)
        self._done = 0
        self._show = show

    def __call__(self, length_bytes: int) -> None:
        self._done += length_bytes
        self._show(self._stage, self._done / self._total)


def _found(name: str) -> tuple[BundleStore, Bundle]:
    store = store_here()
    return store, find(store, TrustList.load(default_home()), name)


def _say(bundle: Bundle, json: bool, done: str) -> None:
    if json:
        print_json({"name": bundle.manifest.name, "cid": bundle.cid, done: True})
    else:
        line(f"{done} {bundle.manifest.name}  {bundle.cid}")
