"""Faults that prove themselves, as a client meets them: who is not dealt with any more, and who is not slandered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from nacl.signing import SigningKey

from fallow.cli.verify import verify
from fallow.client.faults import Faults
from fallow.client.history import History, Subject
from fallow.client.late import Late
from fallow.client.wallet import Wallet
from fallow.node.book import Book, Profile
from fallow.node.network.seam import Network
from fallow.node.network.standing import Fault as Blame
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.evidence import Evidence, Fault
from fallow.protocol.identity import EXECUTOR, Mandate
from fallow.protocol.messages.assurance import EvidenceMessage
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.receipts import OPEN, Receipt

CLIENT, NODE, OTHER, OWNER = (SigningKey(bytes([number] * 32)) for number in range(1, 5))
NODE_KEY, OTHER_KEY, OWNER_KEY = (bytes(key.verify_key) for key in (NODE, OTHER, OWNER))
H, NOW_MS = b"\x07" * 32, 1_790_000_000_000
RECEIPT = Receipt(H, 0, None, 0, 1, H, (-1,), "float32/x", 10, OPEN)
ONE, MORE = sign(RECEIPT, NODE), sign(replace(RECEIPT, amount_ucr=11), NODE)


class Around:
    """A network of which only the standing counts."""

    def __init__(self) -> None:
        self.blamed: list[Blame] = []

    def blame(self, peer: bytes, fault: Blame) -> None:
        self.blamed.append(fault)


class Client:
    def __init__(self, home: Path, wallet: Wallet, history: History, book: Book) -> None:
        self.wallet, self.history, self.network, self.folder = wallet, history, Around(), home / "faults"
        self.late = Late(history)
        self.faults = Faults(
            cast(Network, self.network), self.folder, Random(1), wallet, history, self.late, book
        )  # fmt: skip

    @property
    def looks_back(self) -> bool:
        return not self.late._idle.is_set()

    def hear(self, *records: Signed[Any], accused: bytes = NODE_KEY) -> None:
        """Another peer says that these prove a fault."""
        evidence = Evidence(str(Fault.EQUIVOCATION), accused, tuple(each.envelope for each in records), "")
        self.faults.gossip.take_untrusted(encode_message(EvidenceMessage(sign(evidence, OTHER).envelope)), OTHER_KEY)


@contextmanager
def client(home: Path) -> Iterator[Client]:
    """A process, one after the other on the same home."""
    with (
        closing(Wallet(home / "wallet.db", CLIENT)) as wallet,
        closing(History(home / "history.sqlite")) as history,
        closing(Book(home / "book.sqlite", lambda: NOW_MS)) as book,
    ):
        yield Client(home, wallet, history, book)


def meet(home: Path) -> None:
    """The node was asked once, and has shown whose it is; another one of that owner has worked well."""
    mandate = sign(Mandate(NODE_KEY, OWNER_KEY, (EXECUTOR,), 1, NOW_MS, NOW_MS + 1000, None), OWNER)
    with (
        closing(Book(home / "book.sqlite", lambda: NOW_MS)) as book,
        closing(History(home / "history.sqlite")) as history,
    ):
        book.answered(NODE_KEY, (), (H,), 1, Profile(mandate.envelope, b"-", b"-"))
        history.passed(SISTER, EXECUTOR, NOW_MS, 50)


SISTER = Subject(OTHER_KEY, OWNER_KEY, H, "float32")


@pytest.mark.parametrize("found", ["here", "elsewhere"])
async def test_who_contradicts_itself_is_not_dealt_with_and_its_owner_is_a_newcomer(tmp_path: Path, found: str) -> None:
    meet(tmp_path)
    with client(tmp_path) as one:
        assert one.wallet.distrusted == set() and one.history.valid(SISTER) == 50
        one.faults.accuse((ONE, MORE)) if found == "here" else one.hear(ONE, MORE)
        assert one.wallet.distrusted == {NODE_KEY}
        assert (one.history.valid(SISTER), one.history.faults(OWNER_KEY), one.looks_back) == (0, 1, True)
        (file,) = one.folder.iterdir()
    assert verify([file]) == 0, "anybody can read it"
    with client(tmp_path) as again:
        assert again.wallet.distrusted == {NODE_KEY}, "a later process has not forgotten"
        assert (again.history.faults(OWNER_KEY), again.looks_back) == (1, False), "it counts once"


@pytest.mark.parametrize(
    ("records", "accused"),
    [
        ((ONE, ONE), NODE_KEY),
        ((ONE, sign(replace(RECEIPT, sequence=1), NODE)), NODE_KEY),
        ((ONE, sign(MORE.record, OTHER)), NODE_KEY),
        ((ONE, MORE), OTHER_KEY),
        ((ONE, Signed(MORE.record, NODE_KEY, MORE.envelope[:-1] + bytes([MORE.envelope[-1] ^ 1]))), NODE_KEY),
    ],
    ids=["the same", "two windows", "two signers", "another accused", "a forged signature"],
)
async def test_a_false_accusation_harms_nobody_but_its_author(
    tmp_path: Path, records: tuple[Signed[Any], Signed[Any]], accused: bytes
) -> None:
    meet(tmp_path)
    with client(tmp_path) as one:
        with pytest.raises(RemoteProtocolError):
            one.hear(*records, accused=accused)
        assert one.network.blamed == [Blame.BAD_RECORD]
        assert (one.wallet.distrusted, one.folder.exists(), one.looks_back) == (set(), False, False)
        assert (one.history.valid(SISTER), one.history.faults(OWNER_KEY)) == (50, 0)


async def test_what_proves_nothing_is_not_said(tmp_path: Path) -> None:
    with client(tmp_path) as one:
        one.faults.accuse((ONE, ONE))
        assert (one.wallet.distrusted, one.folder.exists()) == (set(), False)


async def test_of_whom_no_fault_is_known_any_more_is_dealt_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.known_faults.KEPT_MAX", 1)
    with client(tmp_path) as one:
        one.hear(ONE, MORE)
        one.hear(sign(ONE.record, OTHER), sign(MORE.record, OTHER), accused=OTHER_KEY)
        assert one.wallet.distrusted == {OTHER_KEY}
