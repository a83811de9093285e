"""`fallow call`: a function of arrays, from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..protocol.errors import Code, ConfigError
from ..protocol.limits import CALL_INPUTS_MAX, PRICE_MAX_UCR
from . import array_files
from .ask import ASSURANCE, Assurance, PriceCap
from .environment import AsJson, Bootstrap, joined
from .output import line, print_json, progress, remark
from .proof import Keep, Openings, ReceiptsFolder, receipts_json, rejection_shown, show_proof, verdict_json

if TYPE_CHECKING:
    from ..client import Batch
    from ..client.arrays import Given
    from ..protocol.bundle import Manifest

SHOWN_MAX = 6
"""Numbers of an array that are shown; --json and --out have them all."""


async def call(
    bundle: str,
    /,
    *,
    input: Annotated[
        list[str] | None,
        Parameter(
            name="--input",
            help="NAME=FILE for each array: .npy, .wav (16-bit PCM, mono), .bin (as it is sealed); or NAME=zeros, or numbers "
            "in JSON. A name given several times makes several calls.",
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(name="--out", help="Keep the outputs in this .npz, or as .npy files in this directory.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        Parameter(
            help="Keep what is done in this file: the same command goes on from there. More calls than one order carries are "
            "done in parts without it, too; a node that leaves costs no part that is done."
        ),
    ] = None,
    assurance: Assurance = ASSURANCE,
    max_price: PriceCap = PRICE_MAX_UCR,
    receipts: ReceiptsFolder = None,
    openings: Openings = False,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """One line for each output on stdout; with --json the whole of it. `fallow bundle inspect` says what a bundle takes."""
    given = {name: [array_files.read(each) for each in texts] for name, texts in _named(input or []).items()}
    keep = Keep(receipts, openings)
    keep.prepare()
    if out is not None:
        array_files.prepare(out)
    with rejection_shown(keep, json), progress("asking the mesh"):
        async with joined(bootstrap) as mesh:
            inputs = _rows(await mesh.manifest(bundle), given)
            if checkpoint is not None or len(inputs) > CALL_INPUTS_MAX:
                batch = await mesh.batch(
                    bundle, inputs, checkpoint=checkpoint, assurance=assurance, price_max_ucr=max_price
                )
                return _show_batch(batch, assurance, out, json=json)
            outputs = await mesh.call(bundle, inputs, assurance=assurance, price_max_ucr=max_price)
    if json:
        print_json(
            {
                "outputs": [{name: array.tolist() for name, array in row.items()} for row in outputs],
                "assurance": assurance,
                "verdict": verdict_json(outputs.verdict),
                "receipts": receipts_json(outputs.receipts),
                "usage": {"prompt_tokens": outputs.usage.prompt_tokens},
            }
        )
    else:
        _show_rows(outputs.rows)
        show_proof(outputs.verdict, outputs.receipts)
    if out is not None:
        array_files.write(out, outputs.rows)
        remark(f"outputs kept in {out}")
    keep.save(outputs.proof)


def _show_batch(batch: Batch, assurance: str, out: Path | None, *, json: bool) -> None:
    """What a batch gave, and how many of its parts were checked."""
    if json:
        print_json(
            {
                "outputs": [{name: array.tolist() for name, array in row.items()} for row in batch],
                "assurance": assurance,
                "verdicts": [verdict_json(verdict) for verdict in batch.verdicts],
                "receipts": receipts_json(batch.receipts),
                "usage": {"prompt_tokens": batch.usage.prompt_tokens},
            }
        )
    else:
        _show_rows(batch.rows)
        remark(f"{len(batch)} outputs; in this run {len(batch.receipts)} receipts and {len(batch.verdicts)} verdicts")
    if out is not None:
        array_files.write(out, batch.rows)
        remark(f"outputs kept in {out}")


def _show_rows(rows: Sequence[Mapping[str, memoryview[float]]]) -> None:
    for index, row in enumerate(rows):
        for name, array in row.items():
            line(f"{f'{index}: ' if len(rows) > 1 else ''}{name} {_shown(array)}")


def _named(words: Sequence[str]) -> dict[str, list[str]]:
    """What is given for each name, in order."""
    named: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ConfigError(Code.BAD_CONFIG, f"--input takes NAME=FILE, not {word[:80]!r}.")
        named.setdefault(name, []).append(text)
    counts = {len(texts) for texts in named.values()} - {1}
    if len(counts) > 1:
        given = ", ".join(f"{name} {len(texts)}" for name, texts in named.items())
        raise ConfigError(Code.BAD_CONFIG, f"Each --input is given once, or as often as the others: {given}.")
    return named


def _rows(manifest: Manifest, given: Mapping[str, Sequence[array_files.Reading]]) -> list[Mapping[str, Given]]:
    """One mapping for each call; a name that was given once is the same in all. Names that are wrong stay in."""
    tensors = {tensor.name: tensor for tensor in manifest.inputs}
    rows: list[Mapping[str, Given]] = []
    for index in range(max(map(len, given.values()), default=1)):
        chosen = {name: readings[index % len(readings)] for name, readings in given.items()}
        rows.append({name: reading(tensors[name]) if name in tensors else None for name, reading in chosen.items()})
    return rows


def _shown(array: memoryview[float]) -> str:
    """For a person: form, first numbers, and where the largest is."""
    flat = array.cast("B").cast("f").tolist()
    values = ", ".join(f"{value:+.4f}" for value in flat[:SHOWN_MAX])
    if len(flat) == 1:
        return values
    shape = ", ".join(map(str, array.shape or ()))
    if len(flat) <= SHOWN_MAX:
        return f"[{shape}]: {values}"
    at = max(range(len(flat)), key=flat.__getitem__)
    return f"[{shape}]: {values}, ...; the largest is {flat[at]:+.4f} at {at}"
