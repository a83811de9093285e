"""Page 06: the states that it explains are those that a node can say."""

from __future__ import annotations

import re
from pathlib import Path

from fallow.protocol.profiles import State

PAGE = Path(__file__).parent.parent.parent / "spec/06-grid.md"


def test_every_state_is_explained() -> None:
    table = PAGE.read_text("utf-8").partition("| State |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == [str(state) for state in State]
