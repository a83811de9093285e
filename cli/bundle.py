"""`fallow bundle`: models as data, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.engine.bundles import Bundle, BundleStore
from ..node.trust import TrustList
from ..protocol.errors import Code, ConfigError, FallowError, StoreError
from .environment import AsJson, usable_home
from .output import Json, line, needing, print_json, progress, remark, table

MIB = 1024 * 1024


def build(
    names: Annotated[
        list[str], Parameter(name="NAME", negative=(), help="A recipe, a GGUF file, or a model's folder.")
    ],
    /,
    *,
    name: Annotated[str, Parameter(help="What a model from a file or folder is to be called.")] = "",
    licence: Annotated[str, Parameter(help="Its licence, as an SPDX expression, where it does not say it.")] = "",
    provenance: Annotated[str, Parameter(help="Where it comes from, in a sentence.")] = "",
    context: Annotated[
        int | None, Parameter(help="Tokens of the longest conversation; 1024, if it has as many.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Each bundle is in this machine's store, and trusted. A recipe that was built before is only looked up."""
    with needing("models"):
        from ..models import build as build_recipe
        from ..models.local import build_from, name_of

    def one(each: str, on_progress: Callable[[str, float], None]) -> tuple[str, str]:
        path = Path(each)
        if not _is_path(each):
            return each, build_recipe(each, _store(), on_progress)
        bundle = build_from(
            path, _store(), name=name, licence=licence, provenance=provenance, context=context, on_progress=on_progress
        )
        return name or name_of(path), bundle.cid

    if (name or licence or provenance or context) and (len(names) > 1 or not _is_path(names[0])):
        raise ConfigError(Code.BAD_CONFIG, "--name, --licence, --provenance and --context are of one file or folder.")
    built: dict[str, Json] = {}
    for each in names:
        called, cid = _build(each, one)
        built[called] = cid
        if not json:
            line(f"{called}  {cid}")
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


def _is_path(name: str) -> bool:
    """A recipe is a word: a path has a slash, or ends as a file does."""
    return "/" in name or name.endswith(".gguf") or name in (".", "..")


def _build(each: str, build_one: Callable[[str, Callable[[str, float], None]], tuple[str, str]]) -> tuple[str, str]:
    with progress(each) as show, usable_home():

        def on_progress(stage: str, fraction: float) -> None:
            show(f"{each}: {stage}", fraction)

        return build_one(each, on_progress)


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
