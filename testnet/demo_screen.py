"""How the demonstration looks in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..client import Chunk, Handover, NodeView, PaidReceipt
from ..protocol.checks import Verdict
from ..protocol.identity import peer_id
from .demo_money import Payouts
from .record import LocalNode

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
_SAID_LINES = 4


class Screen:
    """Everything that is shown goes through here, to standard output or, beside `--json`, to standard error."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = Console(stderr=to_stderr, highlight=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float | None], None]]:
        """A bar while nothing else can be shown; takes the stage and the fraction done (None: not known)."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("starting", total=None)

            def show(stage: str, fraction: float | None) -> None:
                bar.update(task, description=stage, total=None if fraction is None else 1.0, completed=fraction or 0.0)

            yield show

    def network(self, nodes: Sequence[LocalNode], found: Sequence[NodeView]) -> None:
        """The nodes, each a process, and what the client found of them knowing one address."""
        views = {view.peer_id: view for view in found}
        table = Table(title="Six processes that found each other from one address", title_justify="left")
        for column in ("node", "owner", "pid", "found by the client", ""):
            table.add_column(column)
        for index, node in enumerate(nodes):
            view = views.get(node.peer_id)
            note = "bootstrap" if index == 0 else "lies" if node.liar else ""
            seen = f"{view.state}, {view.rtt_ms} ms" if view else "not found"
            table.add_row(_name(node.peer_id, nodes), node.owner[:8], str(node.pid), seen, note)
        self._console.print(table)

    def point(self, number: int, title: str) -> None:
        """A new point of the demonstration begins."""
        self._console.print()
        self._console.print(Text(f"{number}  {title}", "bold reverse"))

    def question(self, text: str) -> None:
        """What is asked."""
        self._console.print(Text(f"> {text}", "dim"))

    @contextmanager
    def text(self, nodes: Sequence[LocalNode]) -> Iterator[Callable[[Chunk], None]]:
        """Chunks appear as they are shown, each executor's in a colour of its own."""
        parts: list[tuple[str, str]] = []
        with Live(Text(), console=self._console, auto_refresh=False) as live:

            def show(chunk: Chunk) -> None:
                _cut(parts, chunk.length)
                parts.append((chunk.executor, chunk.text))
                shown, writer = Text(), ""
                for executor, text in parts:
                    if executor != writer:
                        shown.append_text(Text(f" [{_word(executor, nodes)}] ", "dim"))
                        writer = executor
                    shown.append(text, _COLOURS[_index(executor, nodes)])
                live.update(shown, refresh=self._console.is_terminal)

            yield show
        if not self._console.is_terminal:
            self._console.print()

    def verdict(self, verdict: Verdict | None, nodes: Sequence[LocalNode]) -> None:
        """What the quorum came to, member by member."""
        if verdict is None:
            return
        table = Table(title=Text(f"verdict: {verdict.outcome} ({verdict.policy})", "bold"), title_justify="left")
        for column in ("node", "as", "agrees", "why not", "due ucr"):
            table.add_column(column, justify="right" if column == "due ucr" else "left")
        for finding in verdict.findings:
            agrees = Text("yes", "green") if finding.agrees else Text(finding.standing, "bold red")
            name = _name(peer_id(finding.node), nodes)
            table.add_row(name, finding.role, agrees, Text(finding.reason), str(finding.due_ucr))
        self._console.print(table)

    def receipts(self, receipts: Sequence[PaidReceipt], nodes: Sequence[LocalNode]) -> None:
        """Each signed claim of work, and what was paid for it."""
        table = Table(title="receipts", title_justify="left")
        for column in ("receipt", "signed by", "for", "tokens", "asked ucr", "paid ucr"):
            table.add_column(column, justify="right" if column[-3:] in ("ucr", "ens") else "left")
        for receipt in receipts:
            name, short_id = _name(receipt.executor, nodes), receipt.signed.id.hex()[:12]
            amounts = map(str, (receipt.tokens, receipt.amount_ucr, receipt.paid_ucr))
            table.add_row(short_id, name, receipt.entry, *amounts)
        self._console.print(table)

    def similarities(self, texts: Sequence[str], cosines: Sequence[float]) -> None:
        """What the vectors are good for: how near each text is to the first."""
        for text, cosine in zip(texts[1:], cosines[1:], strict=True):
            self._console.print(Text(f"  {cosine:5.2f}  {texts[0]}  ~  {text}"))

    def handovers(self, handovers: Sequence[Handover], nodes: Sequence[LocalNode], gap_ms: int) -> None:
        """Who left, why, who went on, and how long the reader saw nothing."""
        for one in handovers:
            names = _word(one.from_node, nodes), _word(one.to_node, nodes)
            self._console.print(Text(f"  {names[0]} left ({one.reason}); {names[1]} went on at token {one.position}"))
        self._console.print(Text(f"  the reader saw a gap of {gap_ms} ms", "bold"))

    def payouts(self, nodes: Sequence[LocalNode], books: Payouts) -> None:
        """A line for each owner, and the sums."""
        table = Table(show_footer=True)
        sums = [sum(each.values()) for each in (books.receipts, books.unpaid_ucr, books.earned_ucr, books.promised_ucr)]
        headings = ("receipts", "unpaid ucr", "earned ucr", "vouchers ucr")
        table.add_column("owner", "all")
        table.add_column("of node")
        for heading, total in zip(headings, sums, strict=True):
            table.add_column(heading, str(total), justify="right")
        for node in nodes:
            counts = (books.receipts, books.unpaid_ucr, books.earned_ucr, books.promised_ucr)
            figures = (str(count.get(node.owner, 0)) for count in counts)
            table.add_row(node.owner[:8], _name(node.peer_id, nodes), *figures)
        self._console.print(table)

    def said(self, command: str, output: str) -> None:
        """A command and the first lines of what it printed."""
        lines = output.strip().splitlines()[:_SAID_LINES]
        self._console.print(Text(f"$ {command}", "dim"), *map(Text, lines), sep="\n", soft_wrap=True)

    def checked(self, claim: str, holds: bool) -> None:
        """Whether something is so."""
        self._console.print(Text(f"  ✓ {claim}", "green") if holds else Text(f"  ✗ not so: {claim}", "bold red"))

    def end(self, failed: Sequence[str], seconds: float, receipts: Path) -> None:
        """How it went."""
        self._console.print()
        result = Text(f"All of this was so, in {seconds} s.", "bold green")
        if failed:
            result = Text(f"{len(failed)} of the claims above did not hold ({seconds} s).", "bold red")
        self._console.print(result, Text(f"The signed records are in {receipts}"), sep="\n", soft_wrap=True)


def _cut(parts: list[tuple[str, str]], length: int) -> None:
    """Of the text so far, `length` characters are left."""
    for index, (executor, text) in enumerate(parts):
        if len(text) > length:
            parts[index:] = [(executor, text[:length])]
            return
        length -= len(text)


def _index(peer: str, nodes: Sequence[LocalNode]) -> int:
    return next((i for i, node in enumerate(nodes) if node.peer_id == peer), 0) % len(_COLOURS)


def _word(peer: str, nodes: Sequence[LocalNode]) -> str:
    kind = next((node.kind for node in nodes if node.peer_id == peer), "node")
    return f"{kind} {peer[-4:]}"


def _name(peer: str, nodes: Sequence[LocalNode]) -> Text:
    return Text(_word(peer, nodes), _COLOURS[_index(peer, nodes)])
