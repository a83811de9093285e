"""`fallow bundle`: models as data, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.engine.bundles import Bundle, BundleStore
from ..node.trust import TrustList
from ..protocol.errors import Code, FallowError, StoreError
from .environment import AsJson, usable_home
from .output import Json, line, needing, print_json, progress, remark, table

MIB = 1024 * 1024


def build(
    names: Annotated[list[str], Parameter(name="NAME", negative=())],
    /,
    *,
    json: AsJson = False,
) -> None:
    """Each bundle is in this machine's store, and trusted. One that was built before is only looked up."""
    with needing("models"):
        from ..models import build as build_bundle

    built: dict[str, Json] = {}
    for name in names:
        built[name] = cid = _build(name, build_bundle)
        if not json:
            line(f"{name}  {cid}")
    if json:
        print_json({"bundles": built})


def list_(*, json: AsJson = False) -> None:
    """Every bundle in this machine's store."""
    bundles, trust = _store().list(), TrustList.load(default_home())
    if json:
        print_json({"bundles": [_summary(bundle, trust) for bundle in bundles]})
    elif bundles:
        rows = [
            (b.manifest.name, ", ".join(b.manifest.entries), f"{_mib(b):.0f}", _trusted(b, trust), b.cid)
            for b in bundles
        ]
        table(("name", "entries", "MiB ", "trusted", "cid"), rows)
    else:
        remark(f"No bundle in {_store().root}. `fallow bundle build NAME` makes one.")


def inspect(
    name: Annotated[str, Parameter(help="A bundle's name or CID.")],
    /,
    *,
    check: Annotated[bool, Parameter(help="Read every file, and compare it with the manifest.")] = False,
    json: AsJson = False,
) -> None:
    """What one bundle's manifest says."""
    store, trust = _store(), TrustList.load(default_home())
    bundle = _find(store, trust, name)
    if check:
        with progress(f"reading {_mib(bundle):.0f} MiB"), usable_home():
            bundle.verify()
    if json:
        print_json(_details(bundle, trust))
        return
    for key, value in _details(bundle, trust).items():
        if isinstance(value, str | int):
            line(f"{key:<20} {value}")
    rows = [
        (p.name, p.role, str(p.length), f"{p.flops / 1e9:.2f}", f"{p.artifact.length_bytes / MIB:.2f}")
        for p in bundle.manifest.programs
    ]
    table(("program", "role", "positions ", "GFLOP ", "MiB "), rows)


def _build(name: str, build_bundle: Callable[[str, BundleStore, Callable[[str, float], None]], str]) -> str:
    with progress(name) as show, usable_home():

        def on_progress(stage: str, fraction: float) -> None:
            show(f"{name}: {stage}", fraction)

        return build_bundle(name, _store(), on_progress)


def _store() -> BundleStore:
    return BundleStore(default_home() / "store")


def _find(store: BundleStore, trust: TrustList, name: str) -> Bundle:
    """By CID, else as the trust list means the name, else whatever calls itself so."""
    try:
        return store.open(trust.resolve(name).cid)
    except FallowError as error:
        if error.code is Code.CORRUPT_CHUNK:
            raise
    if (bundle := store.find(name)) is not None:
        return bundle
    if any(name == bundle.cid for bundle in store.list()):
        return store.open(name)
    raise StoreError(Code.BUNDLE_NOT_BUILT, f"Bundle {name!r} is not in {store.root}.")


def _trusted(bundle: Bundle, trust: TrustList) -> str:
    return "yes" if trust.trusts(bundle.signed, bundle.cid) else "no"


def _mib(bundle: Bundle) -> float:
    return sum(file.length_bytes for file in bundle.manifest.files().values()) / MIB


def _summary(bundle: Bundle, trust: TrustList) -> dict[str, Json]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "cid": bundle.cid,
        "publisher": bundle.signed.signer.hex(),
        "trusted": _trusted(bundle, trust) == "yes",
        "entries": list(manifest.entries),
        "length_bytes": sum(file.length_bytes for file in manifest.files().values()),
    }


def _details(bundle: Bundle, trust: TrustList) -> dict[str, Json]:
    manifest = bundle.manifest
    tolerance = manifest.tolerance
    return _summary(bundle, trust) | {
        "family": manifest.family,
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "context_tokens_max": manifest.context_tokens_max,
        "chat": manifest.chat_template is not None,
        "calibrated_by": tolerance.calibrated_by,
        "tolerance": {
            "value_micro": tolerance.value_micro,
            "gap_micro": tolerance.gap_micro,
            "mass_ppm": tolerance.mass_ppm,
        },
        "programs": [{"name": p.name, "role": p.role, "length": p.length, "flops": p.flops} for p in manifest.programs],
        "files": {name: file.length_bytes for name, file in manifest.files().items()},
    }
