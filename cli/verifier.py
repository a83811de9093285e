"""`fallow verifier run`: verdicts as a service, by running the work in dispute again."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from ..node import private
from ..node.accounts import Accounts
from ..node.config import load
from ..node.journal import Journal
from ..node.keys import load_or_create
from ..node.log import wall_ms
from ..node.mandates import Authority, current_mandate, keep_current
from ..node.paying import Paying
from ..node.rails.journal_books import journal_books
from ..node.rails.opening import FOLDER, open_rails
from ..node.trust import TrustList
from ..protocol.envelope import Signed
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import VERIFIER, Mandate, cid_hash_untrusted
from ..protocol.streams import DISPUTE_PROTOCOL, MEANS_PROTOCOL, VERDICT_PROTOCOL
from .environment import cancel_when_terminated
from .output import needing, print_json, progress, remark

LOG = "worker.log"
DOCKET = "docket.sqlite"


async def run(
    *,
    config: Annotated[
        Path,
        Parameter(
            help="As of a node, in TOML: `state` (another one than a node's), `bundles`, `owner_key`, `listen`, `rails`."
        ),
    ],
    fee: Annotated[
        int, Parameter(help="Least fee of a dispute, in micro-credits for its judges together, for which it works.")
    ] = 0,
    answer_s: Annotated[
        int, Parameter(help="Least time that the accused is to have for its answer, in seconds; a day unless set.")
    ] = 86_400,
    json: Annotated[bool, Parameter(help="When it serves, print one JSON object with its address and owner.")] = False,
) -> None:
    """Serves until Ctrl-C or SIGTERM. Whoever lets itself be judged by this owner names it among its `arbiters`; whoever wants
    its word trusts it with `fallow trust owner KEY --verifier ADDRESS`. What it is owed in fees is told by `fallow settle
    --state`, and can be paid to it as to a node, by `fallow pay`.
    """
    with needing("node"):
        from ..client.arbiter import Arbiter
        from ..client.docket import Docket
        from ..client.tribunal import Tribunal
        from ..node.engine.bundles import BundleStore
        from ..node.engine.engine import open_engine
        from ..node.network.mesh import open_network
        from ..node.network.table_rules import profile_rules
    settings = load(config)
    if not settings.bundles:
        raise ConfigError(
            Code.BAD_CONFIG, "Setting `bundles`: a verifier runs work again, and needs the bundles for it."
        )
    private.from_now_on()
    private.folder(settings.state)
    key, trust = load_or_create(settings.state / "node.key"), TrustList.load(settings.home)
    authority = Authority.load(settings, wall_ms())
    judging = replace(settings, roles=(VERIFIER,))
    mandate = current_mandate(judging, bytes(key.verify_key), authority, wall_ms())
    cids = [trust.resolve(name).cid for name in settings.bundles]
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        with progress("starting the worker"):
            store = BundleStore(settings.store)
            engine = await stack.enter_async_context(open_engine(store, cids, log_path=settings.state / LOG))
            rules = profile_rules(wall_ms)
            network = await stack.enter_async_context(
                open_network(bytes(key), settings.listen, settings.bootstrap, rules)
            )
        arbiter = Arbiter(key, mandate, engine, frozenset(map(cid_hash_untrusted, cids)))
        network.serve(VERDICT_PROTOCOL, arbiter.serve)
        docket, journal = Docket(settings.state / DOCKET), Journal(settings.state)
        stack.callback(docket.close)
        stack.callback(journal.close)
        accounts = Accounts(journal, wall_ms)
        rails = stack.enter_context(ExitStack())
        books = journal_books(settings.state)
        paying = Paying(open_rails(settings.rails, settings.state / FOLDER, key, rails, books), accounts)
        network.serve(MEANS_PROTOCOL, paying.answer)
        tribunal = Tribunal(
            key, mandate, engine, arbiter.bundles, docket, network, wall_ms, accounts, paying.owe, answer_s * 1000, fee
        )
        network.serve(DISPUTE_PROTOCOL, tribunal.serve)
        addresses, owner = list(network.addresses()), authority.owner.hex()
        if json:
            print_json({"addresses": addresses, "owner": owner})
        else:
            for address in addresses:
                remark(f"judging at {address}, for owner {owner}; Ctrl-C ends it")

        def give(mandate: Signed[Mandate]) -> None:
            arbiter.mandate = tribunal.mandate = mandate

        await keep_current(judging, bytes(key.verify_key), authority, wall_ms, give)
