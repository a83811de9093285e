"""Write what the specification takes from the code: `python -m spec.generate` in the repository's root, or `make spec`.

With `--check` nothing is written: the stale files are named, and the exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cddl import whole
from .pages import fill

SPEC = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None, spec: Path = SPEC) -> int:
    parser = argparse.ArgumentParser(
        prog="spec.generate", description="Write what the specification takes from the code."
    )
    parser.add_argument("--check", action="store_true", help="name the stale files and write nothing")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in wanted(spec).items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"spec: {path.relative_to(spec.parent)} {'is stale: run make spec' if check else 'is written'}")
        if not check:
            path.write_text(text, "utf-8")
    return 1 if check and stale else 0


def wanted(spec: Path) -> dict[Path, str]:
    """Every file that holds generated text, with the text that it should have. Raises `LookupError` with the page's name."""
    pages = {path.name: path.read_text("utf-8") for path in sorted(spec.glob("*.md"))}
    texts = {spec / "fallow.cddl": whole()}
    for name, text in pages.items():
        try:
            texts[spec / name] = fill(text, pages)
        except LookupError as error:
            raise LookupError(f"{name}: {error}") from None
    return texts


if __name__ == "__main__":
    sys.exit(main())
