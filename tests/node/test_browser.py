"""What the tests of pages see of a browser: pages that give way to others, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from .browser import CHROMIUM, Gone, Refused, tab

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser is here")


async def test_what_is_waited_for_may_come_in_the_next_page(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.html").write_text(f"<title>{name}</title>")
    on = "document.title === 'second' || void location.replace('second.html')"
    with trio.fail_after(90):
        async with tab(tmp_path / "browser", (tmp_path / "first.html").as_uri()) as shown:
            with pytest.raises(Gone):
                await shown.run("new Promise(() => location.replace('second.html'))")
            await shown.until("document.title === 'second'")
            await shown.ask("Page.navigate", url=(tmp_path / "first.html").as_uri())
            await shown.until(on)
            assert await shown.run("document.title") == "second"


async def test_what_the_browser_refuses_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with tab(tmp_path / "browser", "about:blank") as shown:
            with pytest.raises(Refused, match=r"^Page\.nothing: .*Page\.nothing") as refused:
                await shown.ask("Page.nothing")
    assert not isinstance(refused.value, Gone)
