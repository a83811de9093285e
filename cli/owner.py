"""`fallow owner`: the key that is paid, kept away from the machines that earn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from ..node.keys import load, load_or_create
from ..protocol.envelope import sign
from ..protocol.identity import Issuer
from ..protocol.limits import ISSUER_MS_MAX
from .environment import AsJson, hex_of_32, usable
from .output import line, print_json

DAY_MS = 24 * 3600 * 1000
KeyFile = Annotated[Path, Parameter(help="A key file; only its user can read it.")]
Days = Annotated[int, Parameter(help="How long.", validator=validators.Number(gte=1, lte=ISSUER_MS_MAX // DAY_MS))]


def show(key: KeyFile, /, *, json: AsJson = False) -> None:
    """The public key of a key file; a fresh key is made if there is no such file."""
    public = bytes(load_or_create(key).verify_key).hex()
    if json:
        print_json({"key": public})
    else:
        line(public)


def issue(
    issuer: Annotated[str, Parameter(help="The public key that is to sign mandates, as `fallow owner show` gives it.")],
    /,
    *,
    key: KeyFile,
    out: Annotated[Path, Parameter(help="The record, for the setting `issuer` of nodes that have the issuer's key.")],
    days: Days = 365,
) -> None:
    """The owner's word, in a file, that a key may sign mandates in the owner's name. It voids those signed before.

    Parameters
    ----------
    key
        The owner's own key file. It is needed for this alone.
    """
    named = hex_of_32(issuer, "public key of 64 hexadecimal digits.")
    with usable("--key", key):
        owner = load(key)
    now_ms = time.time_ns() // 1_000_000
    record = Issuer(bytes(owner.verify_key), named, now_ms, now_ms, now_ms + days * DAY_MS)
    with usable("--out", out):
        out.write_bytes(sign(record, owner).envelope)
    line(f"{out}: {named.hex()[:16]}... signs for owner {record.owner.hex()[:16]}... for {days} days")
