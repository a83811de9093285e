"""What a caller gets: answers with their proof, as they stream and when they are done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from ..protocol.checks import Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused
from ..protocol.identity import peer_id, short
from ..protocol.opening import Opening
from ..protocol.profiles import CapabilityProfile, ConnectivityProfile
from ..protocol.proofs import ProofFile
from ..protocol.receipts import Receipt

T = TypeVar("T")
Row: TypeAlias = Mapping[str, "memoryview[float]"]
"""Each output by its name: float32 in the bundle's shape (`numpy.asarray` takes it as it is)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as both sides counted them. `prompt_tokens` counts the prompt once, however many nodes read it."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class PaidReceipt:
    """One receipt, and what was paid for it: nothing, where the verdict went against the node."""

    signed: Signed[Receipt]
    owner: str
    """The owner's public key, in hex."""
    role: str
    """`executor` or `checker`."""
    entry: str
    amount_ucr: int
    """What this receipt added to the order's total."""
    paid_ucr: int

    @property
    def executor(self) -> str:
        """Peer id of the node that signed it."""
        return peer_id(self.signed.signer)

    @property
    def tokens(self) -> int:
        return self.signed.record.tokens


@dataclass(frozen=True, slots=True)
class Handover:
    """The text went on at another node."""

    from_node: str
    to_node: str
    reason: str
    position: int
    """Tokens of the answer before it."""
    gap_ms: int
    """Between the last token that the reader got before, and the first after."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user of a result should know, though the result is there."""

    code: Code
    """Stable, as that of an error."""
    message: str
    """For people."""
    node: str
    """Peer id of the node that it is about."""
    tokens: int
    """Of the text, those that it is about."""
    unpaid_ucr: int
    """What they come to at the order's price: not paid, and not owed."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Every signed record behind a result."""

    records: tuple[Signed[Any], ...]
    """In the order in which they came to be."""
    openings: tuple[Opening, ...] = ()
    """What was asked and answered under each order: with it, anybody can recompute the verdict."""

    def save(self, folder: Path | str, *, openings: bool = False) -> list[Path]:
        """Each record is a file `<nnn>-<record>-<signer>.cose` in the folder, which `fallow verify` can check offline.

        With `openings`, what was asked and answered lies beside them in plain, in `<order>.opening`.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        heads = (path.name.partition("-")[0] for path in target.glob("*.cose"))
        taken = [int(head) for head in heads if head.isdecimal()]
        paths = []
        for number, signed in enumerate(self.records, max(taken, default=-1) + 1):
            paths.append(target / f"{number:03d}-{type(signed.record).RECORD}-{short(signed.signer)}.cose")
            paths[-1].write_bytes(signed.envelope)
        for opening in self.openings if openings else ():
            paths.append(target / f"{opening.order.hex()[:16]}.opening")
            paths[-1].write_bytes(opening.encode())
        return paths

    def file(self, *, openings: bool = False) -> bytes:
        """All of it as one file, a *.proof; with `openings`, what was asked and answered in plain."""
        plain = tuple(opening.encode() for opening in self.openings) if openings else ()
        return ProofFile(tuple(signed.envelope for signed in self.records), plain).encode()


class Rejected(Refused):
    """No result could be accepted; `verdict` names who said what, `proof` holds every record behind it."""

    def __init__(self, message: str, verdict: Verdict, receipts: tuple[PaidReceipt, ...], proof: Proof) -> None:
        super().__init__(Code.REJECTED, message)
        self.verdict = verdict
        self.receipts = receipts
        self.proof = proof


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished text."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    """`stop` (the model ended, or a stop string came) or `length`."""
    verdict: Verdict | None
    """None with assurance `none`: nobody has checked it."""
    receipts: tuple[PaidReceipt, ...]
    usage: Usage
    handovers: tuple[Handover, ...]
    proof: Proof
    windows: int = 0
    """Of up to 32 tokens each, for which an executor signed; 0 with assurance `none`."""
    checked: int = 0
    """Those of them that were checked by other owners."""
    notices: tuple[Notice, ...] = ()
    """With assurance `none`: whose tokens of the text no receipt covers."""

    @property
    def unpaid_ucr(self) -> int:
        """What the tokens of the text that no receipt covers come to: not paid, and not owed."""
        return sum(notice.unpaid_ucr for notice in self.notices)

    def save(self, folder: Path | str, *, openings: bool = False) -> list[Path]:
        """As `Proof.save`."""
        return self.proof.save(folder, openings=openings)


@dataclass(frozen=True, slots=True)
class Chunk:
    """More of a streaming text."""

    text: str
    executor: str
    """Peer id of the node that it comes from."""
    length: int
    """Characters of the whole text that stand before `text`; if `retracted`, what was shown after them is withdrawn."""
    retracted: bool
    verified_length: int
    """Characters of the whole text that no check can withdraw any more."""


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """What a function gave: one row for each input, in its order."""

    rows: tuple[T, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> T:
        return self.rows[index]


@dataclass(frozen=True, slots=True)
class Embeddings(Rows[tuple[float, ...]]):
    """Vectors, one for each text."""

    verdict: Verdict | None
    receipts: tuple[PaidReceipt, ...]
    usage: Usage
    proof: Proof

    @property
    def vectors(self) -> tuple[tuple[float, ...], ...]:
        return self.rows

    def save(self, folder: Path | str, *, openings: bool = False) -> list[Path]:
        """As `Proof.save`."""
        return self.proof.save(folder, openings=openings)


@dataclass(frozen=True, slots=True)
class Outputs(Rows[Row]):
    """What a function of arrays gave."""

    verdict: Verdict | None
    receipts: tuple[PaidReceipt, ...]
    usage: Usage
    """An input counts as one token."""
    proof: Proof

    def save(self, folder: Path | str, *, openings: bool = False) -> list[Path]:
        """As `Proof.save`."""
        return self.proof.save(folder, openings=openings)


@dataclass(frozen=True, slots=True)
class Batch(Rows[Row]):
    """What many calls of a function gave; one of texts has one vector in each row, under the name `vector`."""

    verdicts: tuple[Verdict, ...]
    """Of the parts that were checked, as they were done."""
    receipts: tuple[PaidReceipt, ...]
    """Of this run; what a former one did, it paid."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as discovery sees it now."""

    peer_id: str
    owner: str
    kind: str | None
    region: str
    state: str
    reasons: tuple[str, ...]
    bundles: tuple[str, ...]
    """Names from the trust list, or CIDs."""
    rtt_ms: float
    """Of our own question to it."""
    interactive: bool
    addresses: tuple[str, ...]
    jobs_running: int
    distrusted: bool
    """A verdict of ours found it at fault."""
    capability: CapabilityProfile
    connectivity: ConnectivityProfile
    age_s: float
    """Since it answered."""
    relayed: bool
    """It says that it can be reached through relays alone."""
    way: str
    """How we are connected with it: `direct`, `relayed`, or not at all (empty)."""
    tries: int
    answers: int
    """Of ours: how often it was asked, and how often it answered, in all the time that it has been in our peer book."""
    jobs_done: int
    jobs_failed: int
    """Of ours, in the same time."""
    witnesses: int
    """Owners of other nodes who have said, and signed, how well this one is connected."""
