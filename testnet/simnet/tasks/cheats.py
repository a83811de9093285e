"""Who departs from the rules as a client or with a daemon of its own: the testnet's adversaries, on the simulated network.

`characters` says which node is what. Here as there, everything but the rule that is broken is the real code.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from ....client.bundles import ClientBundle
from ....client.team import Team
from ....node.accounts import Account
from ....node.delivery import Session
from ....node.network.seam import Stream
from ....node.serving import Executor
from ....protocol.job import Job
from ....protocol.receipts import Delivery
from ...adversaries import double_spender, false_accuser, non_payer
from ...adversaries.customer import Attack, Customer, Outcome
from ..scenario import Faults
from . import model
from .slander import slander

NON_PAYERS, MISOPENERS = "non_payers", "misopeners"
ATTACKS: Final[Mapping[str, Attack]] = {
    "double_spenders": double_spender.spend,
    NON_PAYERS: non_payer.take,
    "false_accusers": false_accuser.accuse,
    MISOPENERS: non_payer.take,
    "slanderers": slander,
}
"""By the names of the clients' shares in `Faults`."""
PROMPT_TOKENS: Final = 20


def executor_with(session: type[Session] | None) -> type[Executor]:
    """A node's executor whose jobs are delivered like that; None: as they are."""
    if session is None:
        return Executor
    kind = session

    class Cheating(Executor):
        def _session(self, stream: Stream, job: Job, delivery: Delivery, account: Account) -> Session:
            return kind(stream, job, delivery, account, self._accounts, self._key)

    return Cheating


def attacks_by_client(faults: Faults, clients: int, random: Random) -> list[str]:
    """Of each client by number, what it does to nodes; empty: it is honest. Shares are counted; chance says whose they are."""
    attacks = [""] * clients
    left = random.sample(range(clients), clients)
    for name in ATTACKS:
        count = round(getattr(faults, name) * clients)
        for number in left[:count]:
            attacks[number] = name
        left = left[count:]
    return attacks


async def attack(
    name: str, team: Team, bundle: ClientBundle, judges: Mapping[bytes, str], random: Random
) -> list[Outcome]:
    """What the attack came to, tried once on whichever node is picked. Raises `FallowError` where there is nobody."""
    prompt = tuple(random.randrange(model.FIRST, model.VOCABULARY) for _ in range(PROMPT_TOKENS))
    return await ATTACKS[name](Customer(team, bundle, prompt, judges), None)
