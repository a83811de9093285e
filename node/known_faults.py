"""Faults that count here: one proof of each, kept as a file that `fallow verify` reads, and weighed.

Whoever adds one has looked at what proves it. So many are kept and no more: the oldest make place, and last those of keys with
which somebody here has dealings.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from ..protocol.errors import RemoteProtocolError
from ..protocol.evidence import Evidence, Fault, Proven
from ..protocol.limits import RECORD_BYTES_MAX
from ..protocol.records import check_evidence_untrusted
from .private import folder as private_folder
from .private import replace

KEPT_MAX: Final = 512
"""Faults at once, a file each of a kilobyte or two, and never above 256. The oldest make place, first those of keys that nobody
here deals with."""
SUFFIX: Final = ".cose"


class KnownFaults:
    """Made once for each process. What `folder` holds of earlier times counts at once; it is made once something is kept."""

    def __init__(
        self,
        folder: Path,
        weigh: Callable[[Proven], None],
        concerns: Callable[[bytes], bool],
        let_go: Callable[[bytes], None],
    ) -> None:
        """`weigh`, `concerns` and `let_go` as in `Gossip`."""
        self._folder = folder
        self._weigh = weigh
        self._concerns = concerns
        self._let_go = let_go
        self._known: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        """By fault and accused: the evidence's id."""
        self._read()

    def at_fault(self, key: bytes) -> bool:
        """Whether a fault of this key's is known."""
        return any((str(fault), key) in self._known for fault in Fault)

    def has(self, evidence: Evidence) -> bool:
        """Whether what it says is known, perhaps by another proof."""
        return (evidence.fault, evidence.accused) in self._known

    def add(self, evidence: Signed[Evidence], proven: Proven) -> None:
        """The fault counts, whether or not it can be kept as a file."""
        while len(self._known) >= KEPT_MAX:
            self._forget()
        self._known[str(proven.fault), proven.accused] = evidence.id
        self._weigh(proven)
        try:
            private_folder(self._folder)
            replace(self._path(str(proven.fault), proven.accused), evidence.envelope)
        except OSError as error:
            logging.getLogger(__name__).warning("a fault counts until this process ends, but was not kept: %s", error)

    def _forget(self) -> None:
        """One fault is forgotten: the oldest, of a key that nobody here deals with if there is one."""
        key = next((key for key in self._known if not self._concerns(key[1])), next(iter(self._known)))
        del self._known[key]
        self._remove(self._path(*key))
        if not self.at_fault(key[1]):
            self._let_go(key[1])

    def _path(self, fault: str, accused: bytes) -> Path:
        return self._folder / f"{fault}-{accused.hex()}{SUFFIX}"

    def _remove(self, path: Path) -> None:
        with suppress(OSError):  # as many as are kept are forgotten at the next start
            path.unlink(missing_ok=True)

    def _read(self) -> None:
        """What was kept before counts again, if it still proves something. What cannot be read is passed over: another process
        of this home may be forgetting it."""
        try:
            files = sorted(self._folder.glob(f"*{SUFFIX}"), key=self._rank)
        except OSError:
            return
        for path in files[:-KEPT_MAX]:
            self._remove(path)
        for path in files[-KEPT_MAX:]:
            try:
                with path.open("rb") as stream:
                    envelope = stream.read(RECORD_BYTES_MAX + 1)
                evidence = verify_untrusted(Evidence, envelope, signer=claimed_signer_untrusted(envelope))
                proven = check_evidence_untrusted(evidence.record)
            except (OSError, RemoteProtocolError):
                continue  # a file that somebody has changed proves nothing
            self._known[str(proven.fault), proven.accused] = evidence.id
            self._weigh(proven)

    def _rank(self, path: Path) -> tuple[bool, float]:
        """The higher, the later it is forgotten."""
        try:
            return self._concerns(bytes.fromhex(path.stem.rpartition("-")[2])), path.stat().st_mtime
        except (OSError, ValueError):
            return False, 0.0
