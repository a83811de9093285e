"""Signatures and records that were read once are not read again: of all machines in one process, one has done it for all.

Reading and checking are pure functions of their bytes, so what the machines see is the same; a real mesh shares the work among
as many processors as it has machines. Whatever is refused is read anew each time. Both are functions that `protocol.envelope`
and `protocol.messages` call by their own names for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from ....protocol import envelope

REMEMBERED_MAX: Final = 65_536
"""Of each, a few kilobytes apiece: those of some thousand nodes, and of the jobs of the last minutes."""


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, each signature is checked and each record read once."""
    module: Any = envelope
    checks, reads = module.check_signature_untrusted, module.read_untrusted

    @lru_cache(REMEMBERED_MAX)
    def read(kind: type[Any], encoded: bytes, bytes_max: int) -> Any:
        return reads(kind, encoded, bytes_max=bytes_max)

    module.check_signature_untrusted = lru_cache(REMEMBERED_MAX)(checks)
    module.read_untrusted = read
    try:
        yield
    finally:
        module.check_signature_untrusted, module.read_untrusted = checks, reads
