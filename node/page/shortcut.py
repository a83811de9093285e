"""The way of this user's browser to the owner's page: a file. What a program is started with, every user can read."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Final

from ...protocol.errors import Code, StoreError

SHORTCUT: Final = "page.html"
"""In the state directory, beside the key that it tells: who can read the one can read the other."""
_LEADS: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>Fallow</title>
<a href="{address}">This machine's page</a>
"""


def shortcut(state: Path, address: str) -> Path:
    """The file leads to the address, and nobody but this user can read it. Raises `StoreError` if it cannot be written."""
    path, scratch = state.absolute() / SHORTCUT, state / f".{SHORTCUT}"
    try:
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(_LEADS.format(address=escape(address)))
        scratch.replace(path)
    except OSError as error:
        raise StoreError(
            Code.STORE_FULL, f"{path} cannot be written: {error.strerror}. The page is there; its address leads to it."
        ) from None
    return path
