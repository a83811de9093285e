"""What the pages of this machine share: their looks and charts, and what keeps them to this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE: Final = Path(__file__).parent
SHARED: Final = {
    "base.css": "text/css",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
    "uPlot.LICENSE": "text/plain",
}
"""Files of `assets/` that every page may use."""
_POLICY: Final = (
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'", "base-uri 'none'",
    "frame-ancestors 'none'",
)  # fmt: skip


def headers(*, forms: bool) -> dict[str, str]:
    """Of every answer: nothing but the page's own files runs, nobody frames it, nothing is kept. `forms`: it has some."""
    action = "form-action 'self'" if forms else "form-action 'none'"
    return {
        "content-security-policy": "; ".join((*_POLICY, action)),
        "x-content-type-options": "nosniff",
        # With `no-referrer`, browsers would hide from the page's own forms' targets where they come from.
        "referrer-policy": "same-origin" if forms else "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }


def names(port: int) -> frozenset[str]:
    """What a request may call this machine: a web page could have its own name resolve here."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


def templates(folder: Path) -> Environment:
    """Everything that goes into them is escaped, and has to be there. `marked` shows what stands in backticks as code."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["marked"] = _marked
    return made


def _marked(words: str) -> Markup:
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(words))))
