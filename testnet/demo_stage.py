"""What the points of the demonstration act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..client import Mesh, PaidReceipt
from ..protocol.receipts import CANCELLED
from .demo_screen import Screen
from .demo_script import Script
from .local import Testnet
from .record import LocalNode


@dataclass
class Stage:
    """The network, its clients, the screen, and what turned out not to be so."""

    script: Script
    testnet: Testnet
    reader: Mesh
    stranger: Mesh
    """A second client, who has met nobody yet: the reader may have caught the liar before it is its turn."""
    screen: Screen
    receipts: Path
    failed: list[str] = field(default_factory=list)
    unheard_ucr: int = 0
    """Paid to the liar for work that it was asked to stop before it had told anything: it has not lied in that."""

    @property
    def liar(self) -> LocalNode:
        return next(node for node in self.testnet.nodes if node.liar)

    @property
    def vehicles(self) -> list[LocalNode]:
        return [node for node in self.testnet.nodes if node.kind == "vehicle"]

    def note(self, receipts: Iterable[PaidReceipt]) -> None:
        """What the liar was paid by these without having told anything is known."""
        mine = (receipt for receipt in receipts if receipt.executor == self.liar.peer_id)
        untold = (each for each in mine if each.signed.record.end == CANCELLED and not each.tokens)
        self.unheard_ucr += sum(receipt.paid_ucr for receipt in untold)

    def check(self, claim: str, holds: bool) -> bool:
        """The claim is on the screen with whether it holds, and remembered if it does not."""
        self.screen.checked(claim, holds)
        if not holds:
            self.failed.append(claim)
        return holds
