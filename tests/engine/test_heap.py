"""What a heap with holes holds free, and gives back."""

import platform
import subprocess
import sys

import pytest

HOLES = """
import re
from fallow.node.engine.heap import trim

def private_kib():
    return int(re.search(r"Private_Dirty: +([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])

blocks = [b"x" * 65_000 for _ in range(1000)]
kept = blocks[::10]
del blocks
before = private_kib()
trim()
print(before - private_kib())
"""
"""In a process of its own, whose heap nobody else uses."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no say here")
def test_what_lies_free_between_what_is_used_is_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60)
    assert int(run.stdout) > 40_000  # of 58 500 KiB that were freed
