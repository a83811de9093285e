"""`fallow bundle fetch`: a bundle from whoever has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.engine.sizes import MIB
from ..node.trust import TrustList
from ..protocol.bundle import Manifest
from ..protocol.envelope import Signed
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import peer_id
from .environment import AsJson, Bootstrap, bootstrap_addresses, usable_home
from .output import Json, progress, remark
from .shelf import arrived, bytes_of

if TYPE_CHECKING:
    from ..node.fetching import Progress


async def fetch(
    name: Annotated[str, Parameter(help="A name that the trust list knows, or any bundle's CID.")],
    /,
    *,
    from_: Annotated[
        list[str] | None,
        Parameter(
            name="--from", help="Ask this peer (its id, or an address that ends in it) and no others; repeatable."
        ),
    ] = None,
    max_rate: Annotated[str | None, Parameter(help="Bytes a second at most, as 2MB.")] = None,
    to: Annotated[str | None, Parameter(help="How large the store may get, as 20GB.")] = None,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """The bundle is in this machine's store, every byte checked. Stopped half-way, it goes on from there the next time."""
    from ..client.fetching import checked_source, fetch_bundle

    cid, accept = _wanted(name)
    sources = [checked_source(source) for source in from_ or ()]
    join = [] if any(source.startswith("/") for source in sources) else bootstrap_addresses(bootstrap)
    began = time.monotonic()
    shown = _Shown(name)
    try:
        with progress(name) as show, usable_home():
            shown.show = show
            done = await fetch_bundle(
                cid,
                default_home(),
                join,
                sources,
                accept=accept,
                bytes_max=bytes_of(to) if to else None,
                bytes_per_s=bytes_of(max_rate) if max_rate else 0,
                on_progress=shown,
            )
    except* KeyboardInterrupt:
        remark(f"Stopped. {shown.done_mib:.1f} MiB are kept; the same command goes on from there.")
        raise
    took_s = time.monotonic() - began
    if not json:
        remark(
            f"{done.bytes_fetched / MIB:.1f} MiB in {took_s:.1f} s from {len(done.sources)} sources, "
            f"{sum(done.wrong.values())} wrong chunks"
            + "".join(f"\n  {peer_id(peer)} sent {count} wrong" for peer, count in done.wrong.items())
        )
    sources_bytes: dict[str, Json] = {peer_id(peer): count for peer, count in done.sources.items()}
    wrong: dict[str, Json] = {peer_id(peer): count for peer, count in done.wrong.items()}
    figures = {"bytes_fetched": done.bytes_fetched, "seconds": round(took_s, 3)}
    arrived(done.bundle, json, {**figures, "sources": sources_bytes, "wrong_chunks": wrong})


class _Shown:
    """What the bar says."""

    def __init__(self, name: str) -> None:
        self.done_mib = 0.0
        self.show: Callable[[str, float | None], None] = lambda stage, fraction: None
        self._name = name
        self._began: tuple[float, float] | None = None

    def __call__(self, now: Progress) -> None:
        if not now.bytes_total or now.stage != "fetching":
            self.show(f"{self._name}: {now.stage}{now.waits}", None)
            return
        self.done_mib = now.bytes_done / MIB
        self._began = self._began or (time.monotonic(), self.done_mib)
        rate = (self.done_mib - self._began[1]) / max(1e-3, time.monotonic() - self._began[0])
        wrong = f", {now.wrong_chunks} wrong chunks" if now.wrong_chunks else ""
        said = f"{self.done_mib:.1f} of {now.bytes_total / MIB:.1f} MiB, {rate:.1f} MiB/s from {now.sources}{wrong}{now.waits}"
        self.show(f"{self._name}: {said}", now.bytes_done / now.bytes_total)


def _wanted(name: str) -> tuple[str, Callable[[Signed[Manifest]], None]]:
    """The CID that the trust list means, and what to hold the manifest against; a CID that is not on the list stands for
    itself, of whatever publisher."""
    try:
        entry = TrustList.load(default_home()).resolve(name)
    except ConfigError as error:
        if error.code is not Code.BUNDLE_UNTRUSTED:
            raise
        return name, lambda manifest: None
    return entry.cid, entry.check
