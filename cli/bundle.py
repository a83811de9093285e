"""`fallow bundle`: models as data, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.engine.bundles import Bundle, BundleStore, length_bytes
from ..node.engine.upkeep import pinned
from ..node.trust import TrustList
from ..protocol.bundle import Tensor
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
    bundles, trust = store_here().list(), TrustList.load(default_home())
    if json:
        print_json({"bundles": [_summary(bundle, trust) for bundle in bundles]})
    elif bundles:
        rows = [
            (b.manifest.name, ", ".join(b.manifest.entries), f"{mib(b):.0f}", trusted(b, trust), b.cid) for b in bundles
        ]
        table(("name", "entries", "MiB ", "trusted", "cid"), rows)
    else:
        remark(f"No bundle in {store_here().root}. `fallow bundle build NAME` makes one.")


def inspect(
    name: Annotated[str, Parameter(help="A bundle's name or CID.")],
    /,
    *,
    check: Annotated[bool, Parameter(help="Read every file, and compare it with the manifest.")] = False,
    json: AsJson = False,
) -> None:
    """What one bundle's manifest says."""
    store, trust = store_here(), TrustList.load(default_home())
    bundle = find(store, trust, name)
    if check:
        with progress(f"reading {mib(bundle):.0f} MiB"), usable_home():
            bundle.verify()
    if json:
        print_json(_details(store, bundle, trust))
        return
    table(("", bundle.manifest.name), [(key, value) for key, value in _described(store, bundle, trust)])
    rows = [
        (
            *(p.name, p.role, str(p.slots), str(p.length), str(p.context)),
            *(f"{p.flops / 1e9:.2f}", f"{p.memory_bytes / MIB:.0f}", f"{p.artifact.length_bytes / MIB:.2f}"),
        )
        for p in bundle.manifest.programs
    ]
    table(("program", "role", "slots ", "positions ", "context ", "GFLOP ", "MiB a run ", "MiB "), rows)


def _build(name: str, build_bundle: Callable[[str, BundleStore, Callable[[str, float], None]], str]) -> str:
    with progress(name) as show, usable_home():

        def on_progress(stage: str, fraction: float) -> None:
            show(f"{name}: {stage}", fraction)

        return build_bundle(name, store_here(), on_progress)


def store_here() -> BundleStore:
    """This machine's store."""
    return BundleStore(default_home() / "store")


def find(store: BundleStore, trust: TrustList, name: str) -> Bundle:
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


def trusted(bundle: Bundle, trust: TrustList) -> str:
    """`yes` or `no`."""
    return "yes" if trust.trusts(bundle.signed, bundle.cid) else "no"


def mib(bundle: Bundle) -> float:
    """Of all its files together."""
    return length_bytes(bundle.manifest) / MIB


def _summary(bundle: Bundle, trust: TrustList) -> dict[str, Json]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "cid": bundle.cid,
        "publisher": bundle.signed.signer.hex(),
        "trusted": trusted(bundle, trust) == "yes",
        "entries": list(manifest.entries),
        "length_bytes": length_bytes(manifest),
    }


def _details(store: BundleStore, bundle: Bundle, trust: TrustList) -> dict[str, Json]:
    """The manifest as it is, without its lists of hashes and tensors, and what this machine thinks of the bundle."""
    manifest = bundle.manifest
    return _summary(bundle, trust) | {
        "pinned": pinned(store, bundle.cid),
        "family": manifest.family,
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "context_tokens_max": manifest.context_tokens_max,
        "chat": manifest.chat_template is not None,
        "calibrated_by": manifest.tolerance.calibrated_by,
        "inputs": [_described_tensor(each) for each in manifest.inputs],
        "outputs": [_described_tensor(each) for each in manifest.outputs],
        "tolerance": _plain(manifest.tolerance, without=("calibrated_by", "cheats"))
        | {"cheats": [_plain(cheat, without=()) for cheat in manifest.tolerance.cheats]},
        "programs": [_plain(program, without=("artifact",)) for program in manifest.programs],
        "files": {name: file.length_bytes for name, file in manifest.files().items()},
    }


def _described_tensor(tensor: Tensor) -> dict[str, Json]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _plain(record: object, without: Sequence[str]) -> dict[str, Json]:
    """The fields of a record that JSON can hold; one that is added to the record is shown as well."""
    named = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in without}  # type: ignore[arg-type]  # every record is a dataclass
    return {name: value for name, value in named.items() if isinstance(value, bool | int | str) or value is None}


def _described(store: BundleStore, bundle: Bundle, trust: TrustList) -> Iterator[tuple[str, str]]:
    """What a person wants to know of a bundle before running it, line by line."""
    manifest, tolerance = bundle.manifest, bundle.manifest.tolerance
    programs = sum(program.artifact.length_bytes for program in manifest.programs)
    yield "cid", bundle.cid
    yield "publisher", bundle.signed.signer.hex()
    yield "trusted here", trusted(bundle, trust)
    yield "pinned", "yes" if pinned(store, bundle.cid) else "no"
    yield "entries", ", ".join(manifest.entries)
    yield "weights", f"{manifest.weights.length_bytes / MIB:.2f} MiB, {len(manifest.parameters)} tensors"
    yield "programs", f"{programs / MIB:.2f} MiB"
    if manifest.tokenizer:
        yield "tokenizer", f"{manifest.tokenizer.length_bytes / MIB:.2f} MiB"
    yield "together", f"{mib(bundle):.2f} MiB"
    yield "context", f"{manifest.context_tokens_max} tokens"
    yield "conversation", "no" if manifest.chat_template is None else "yes"
    for title, tensors in (("takes", manifest.inputs), ("gives", manifest.outputs)):
        if tensors:
            yield title, ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in tensors)
    yield "family", manifest.family
    yield "licence", manifest.licence
    yield "provenance", manifest.provenance
    for name, value in _plain(tolerance, without=("calibrated_by", "cheats")).items():
        yield f"tolerance, {name}", str(value)
    for cheat in tolerance.cheats:
        yield f"passes {cheat.name}", f"{cheat.false_accept_ppm} ppm of {cheat.samples}"
    yield "calibrated by", tolerance.calibrated_by
