"""`fallow nodes`: what discovery finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import trio
from cyclopts import Parameter

from ..protocol.bundle import CALL, GENERATE
from ..protocol.profiles import ConnectivityProfile, ServedBundle
from .environment import AsJson, Bootstrap, cancel_when_terminated, joined
from .output import Json, line, live_table, print_json, progress, remark, stdout, table
from .verify import plain

if TYPE_CHECKING:
    from ..client import Mesh, NodeView


_COLUMNS: Final = (
    "node", "owner", "kind", "region", "state", "roles", "serves", "jobs ", "seen ", "rtt ms ", "answers ", "class",
    "reach", "its own rtt ms",
)  # fmt: skip
WATCH_S: Final = 2.0
"""Between two looks: each asks every node that is known."""


async def nodes(
    bundle: Annotated[str | None, Parameter(help="Only nodes that serve this bundle.")] = None,
    /,
    *,
    watch: Annotated[bool, Parameter(help="Go on, and show what changes, until Ctrl-C.")] = False,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """Every node that answered: what it offers, when it answered, how we measured it, and how it measured itself.

    --json has all that stands in the profiles that it signed; with --watch, one object for each look.
    """
    async with AsyncExitStack() as stack:
        with progress("looking for nodes"):
            mesh = await stack.enter_async_context(joined(bootstrap))
            found = await mesh.nodes(bundle)
        if watch:
            await _watch(mesh, bundle, found, json)
            return
    if json:
        _print_all(found)
    elif found:
        table(_COLUMNS, [_row(node) for node in found])
    else:
        remark("No node answered. Nodes appear as they join; ask again, or see whether the bundle's name is right.")


async def _watch(mesh: Mesh, bundle: str | None, found: Sequence[NodeView], as_json: bool) -> None:
    """Runs until Ctrl-C or SIGTERM."""
    with _shown(as_json) as show:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
            while True:
                show(found)
                next_s = trio.current_time() + WATCH_S
                found = await mesh.nodes(bundle, wait_s=WATCH_S)
                await trio.sleep_until(next_s)


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[Sequence[NodeView]], None]]:
    """Shows the nodes of each look. On a terminal the table is kept up; elsewhere each change is a line."""
    if as_json:
        yield _print_all
    elif stdout.is_terminal:
        with live_table(_COLUMNS) as show:
            yield lambda nodes: show([_row(node) for node in nodes])
    else:
        yield _Changes()


def _print_all(nodes: Sequence[NodeView]) -> None:
    print_json({"nodes": [_as_json(node) for node in nodes]})


class _Changes:
    """Prints a line for each node that came, changed or went since it was called last."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def __call__(self, nodes: Sequence[NodeView]) -> None:
        now = {node.peer_id: _in_a_line(node) for node in nodes}
        at = time.strftime("%H:%M:%S")
        for peer_id, words in now.items():
            if (before := self._before.get(peer_id)) != words:
                line(f"{at} {'+' if before is None else '~'} {peer_id[-8:]} {words}")
        for peer_id in self._before.keys() - now.keys():
            line(f"{at} - {peer_id[-8:]} does not answer any more")
        self._before = now


def _in_a_line(node: NodeView) -> str:
    """What is worth a line when it changes: no figures that never stand still."""
    return f"{node.kind or 'node'} {_state(node)}, {_class(node)}, {_reach(node)}: {', '.join(node.bundles)}"


def _row(node: NodeView) -> tuple[str, ...]:
    return (
        node.peer_id[-8:],
        node.owner[:8],
        node.kind or "-",
        node.region or "-",
        _state(node),
        "\n".join(node.capability.roles),
        "\n".join(_offer(node, *each) for each in zip(node.bundles, node.capability.served, strict=True)),
        str(node.jobs_running),
        f"{node.age_s:.0f} s ago",
        f"{node.rtt_ms:.1f}",
        f"{node.answers} of {node.tries}",
        _class(node),
        _reach(node),
        _own_rtt(node.connectivity),
    )


def _state(node: NodeView) -> str:
    state = f"{node.state} ({'; '.join(node.reasons)})" if node.reasons else str(node.state)
    return state + (", found at fault" if node.distrusted else "")


def _offer(node: NodeView, name: str, served: ServedBundle) -> str:
    """The bundle with its measured rate, and the price of what it is mostly asked for."""
    prices = {price.entry: price for price in node.capability.prices if price.bundle == served.bundle}
    if price := prices.get(GENERATE):
        return f"{name}: {served.output_tokens_per_s_milli / 1000:.0f} tokens/s, {price.output_token_ucr} ucr each"
    if price := prices.get(CALL):
        return f"{name}: {served.calls_per_s_milli / 1000:.0f} calls/s, {price.call_ucr} ucr each"
    return name


def _class(node: NodeView) -> str:
    """By the specification's rule: over our own round trip, what witnesses say, or the node's own figures, in this order."""
    return "interactive" if node.interactive else "batch"


def _reach(node: NodeView) -> str:
    """How it says that it is reached, and how we are connected where that is another way."""
    said = "relayed" if node.relayed else "direct"
    return f"{said}, now {node.way}" if node.way not in (said, "") else said


def _own_rtt(profile: ConnectivityProfile) -> str:
    """Its round trips to others, as it measured them: median to 95th percentile."""
    if profile.rtt_p50_us is None or profile.rtt_p95_us is None:
        return "not measured"
    return f"{profile.rtt_p50_us / 1000:.1f} to {profile.rtt_p95_us / 1000:.1f}"


def _as_json(node: NodeView) -> Json:
    return {
        "peer_id": node.peer_id,
        "owner": node.owner,
        "kind": node.kind,
        "region": node.region,
        "state": str(node.state),
        "reasons": list(node.reasons),
        "bundles": list(node.bundles),
        "jobs_running": node.jobs_running,
        "rtt_ms": node.rtt_ms,
        "age_ms": round(node.age_s * 1000),
        "tries": node.tries,
        "answers": node.answers,
        "jobs_done": node.jobs_done,
        "jobs_failed": node.jobs_failed,
        "interactive": node.interactive,
        "witnesses": node.witnesses,
        "reach": "relayed" if node.relayed else "direct",
        "way": node.way,
        "addresses": list(node.addresses),
        "distrusted": node.distrusted,
        "capability": plain("", node.capability),
        "connectivity": plain("", node.connectivity),
    }
