"""The user's own list of whom they trust, as several processes change it."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fallow.node.trust import FILE_NAME, TrustList, extend
from fallow.protocol.errors import Code, ConfigError

ADDS = """
import sys
from pathlib import Path
from fallow.node.trust import TrustList, extend

home, who = Path(sys.argv[1]), int(sys.argv[2])
print(flush=True)
sys.stdin.read()
for number in range(int(sys.argv[3])):
    key = bytes([who, number]) * 16

    def entry() -> str:
        assert all(each.owner != key for each in TrustList.load(home).deposits)
        return f'[[deposit]]\\nowner = "{key.hex()}"\\nmeans = "a"\\nleast_ucr = 1\\n'

    extend(home, entry)
"""
ENTRIES = 40


def test_two_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", ADDS, str(tmp_path)]
    with ExitStack() as stack:
        adding = [
            stack.enter_context(
                subprocess.Popen([*command, str(who), str(ENTRIES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for who in (1, 2)
        ]
        for process in adding:
            assert process.stdout is not None
            process.stdout.readline()  # its imports are over
        for process in adding:
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait(60) for process in adding] == [0, 0]
    owners = [each.owner for each in TrustList.load(tmp_path).deposits]
    assert sorted(owners) == sorted(bytes([who, number]) * 16 for who in (1, 2) for number in range(ENTRIES))
    for who in (1, 2):
        mine = [owner for owner in owners if owner[0] == who]
        assert mine == sorted(mine)


def test_what_is_added_follows_what_the_user_wrote(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text('# mine\n[[owner]]\nname = "a"\nkey = "' + "ab" * 32 + '"')
    assert extend(tmp_path, lambda: "") == path
    before = path.read_text()
    assert before.endswith('"')
    extend(tmp_path, lambda: f'\n[[owner]]\nname = "b"\nkey = "{"cd" * 32}"\n')
    assert path.read_text().startswith(before + "\n")
    assert set(TrustList.load(tmp_path).owners) == {"a", "b"}


def test_what_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("[[owner")

    def entry() -> str:
        TrustList.load(tmp_path)
        return "\n"

    with pytest.raises(ConfigError) as caught:
        extend(tmp_path, entry)
    assert caught.value.code is Code.BAD_CONFIG
    assert path.read_text() == "[[owner"


def test_a_list_that_lies_elsewhere_stays_there(tmp_path: Path) -> None:
    """As among somebody's dotfiles."""
    home, elsewhere = tmp_path / "home", tmp_path / "dotfiles" / "trust"
    for folder in (home, elsewhere.parent):
        folder.mkdir()
    elsewhere.write_text("")
    (home / FILE_NAME).symlink_to(elsewhere)
    extend(home, lambda: f'[[owner]]\nname = "a"\nkey = "{"ab" * 32}"\n')
    assert (home / FILE_NAME).is_symlink()
    assert set(TrustList.load(home).owners) == {"a"}
