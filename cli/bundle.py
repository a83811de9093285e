"""`fallow bundle`: models as data, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..node.engine.bundles import Bundle, BundleStore, length_bytes
from ..node.engine.sizes import MIB
from ..node.engine.upkeep import pinned
from ..node.trust import TrustList
from ..protocol.bundle import Tensor
from ..protocol.errors import Code, ConfigError, FallowError, StoreError
from ..protocol.limits import DEVICES_MAX
from .environment import AsJson, usable_home
from .output import Json, line, needing, print_json, progress, remark, table


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
    devices: Annotated[
        int, Parameter(help="Accelerators of one machine over which a Llama lies, each with a share of its weights.")
    ] = 1,
    json: AsJson = False,
) -> None:
    """Each bundle is in this machine's store, and trusted. A recipe that was built before is only looked up."""
    with needing("models"):
        from ..models import build as build_recipe
        from ..models.local import build_from, name_of

    def one(each: str, on_progress: Callable[[str, float], None]) -> tuple[str, str]:
        path = Path(each)
        if not _is_path(each):
            return each, build_recipe(each, store_here(), on_progress)
        bundle = build_from(
            path,
            store_here(),
            name=name,
            licence=licence,
            provenance=provenance,
            context=context,
            devices=devices,
            on_progress=on_progress,
        )
        return name or name_of(path), bundle.cid

    if not 1 <= devices <= DEVICES_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"--devices is a number from 1 to {DEVICES_MAX}.")
    if (name or licence or provenance or context or devices > 1) and (len(names) > 1 or not _is_path(names[0])):
        options = "--name, --licence, --provenance, --context and --devices"
        raise ConfigError(Code.BAD_CONFIG, f"{options} are of one file or folder.")
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


def _is_path(name: str) -> bool:
    """A recipe is a word: a path has a slash, or ends as a file does."""
    return "/" in name or name.endswith(".gguf") or name in (".", "..")


def _build(each: str, build_one: Callable[[str, Callable[[str, float], None]], tuple[str, str]]) -> tuple[str, str]:
    with progress(each) as show, usable_home():

        def on_progress(stage: str, fraction: float) -> None:
            show(f"{each}: {stage}", fraction)

        return build_one(each, on_progress)


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
