"""What `fallow` can do: each command's words, where its function is, what it does, and an example.

Kept apart from the functions so that help for all of them needs none of their modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `function` is `module:name` in this package."""

    words: str
    function: str
    help: str
    example: str


COMMANDS: Final = (
    Command(
        "demo",
        "demo:demo",
        "See the mesh on this machine: it asks, checks, survives and pays.",
        "fallow demo",
    ),
    Command(
        "generate",
        "ask:generate",
        "Generate text on the mesh, checked by other nodes.",
        'fallow generate smollm2-135m-instruct "Why is the sky blue?" --max-tokens 48 --receipts receipts',
    ),
    Command(
        "embed",
        "ask:embed",
        "Turn texts into vectors on the mesh, checked by other nodes.",
        "fallow embed minilm-l6 parked driving --json",
    ),
    Command(
        "call",
        "call:call",
        "Call a function of arrays on the mesh, checked by other nodes.",
        "fallow call vad --input audio=chunk.wav --input state=zeros --out heard",
    ),
    Command(
        "nodes",
        "nodes:nodes",
        "Show the nodes that discovery finds: what they offer, how fresh, how measured.",
        "fallow nodes minilm-l6 --watch",
    ),
    Command(
        "verify",
        "verify:verify",
        "Check signed records offline: what each is, who signed it, valid or why not.",
        "fallow verify receipts/",
    ),
    Command(
        "gateway",
        "gateway:gateway",
        "Serve the mesh to OpenAI clients on this machine.",
        "fallow gateway --listen 127.0.0.1:8765 --assurance quorum:2/3",
    ),
    Command(
        "audits",
        "audits:audits",
        "Show whom this client's checks have borne out, how often each is checked now, and whom not.",
        "fallow audits --json",
    ),
    Command(
        "earnings",
        "earnings:earnings",
        "Show what a node earned by receipt, day or month, and what other preferences would have brought.",
        "fallow earnings --state ~/car --what-if battery_charge_min_pct=40",
    ),
    Command(
        "prices",
        "prices:prices",
        "Show what a bundle's work goes for, node by node.",
        "fallow prices smollm2-135m-instruct",
    ),
    Command(
        "statement",
        "statement:statement",
        "A month or a year of a node: every credit with its receipt, what is held, what has come in.",
        "fallow statement --month 2026-11 --state ~/car --hledger",
    ),
    Command(
        "dispute",
        "dispute:dispute",
        "Take the other side of an order before the judges that both agreed on.",
        "fallow dispute unpaid 5f0c... --state ~/car --fee 3000",
    ),
    Command(
        "pay",
        "pay:pay",
        "Pay the owner of a node by set-off, ecash or bank transfer, and have it counted there.",
        "fallow pay /ip4/192.0.2.1/tcp/4001/p2p/12D3K... 250000 --rail cashu --reference november",
    ),
    Command(
        "balance",
        "balance:balance",
        "Show who owes you what, and whom you owe, by vouchers, decisions and payments.",
        "fallow balance --state ~/car",
    ),
    Command(
        "purse show",
        "purse:show",
        "Show the ecash at hand, its mint, and the key to which others lock yours.",
        "fallow purse show",
    ),
    Command(
        "purse fill",
        "purse:fill",
        "Get ecash for a Lightning payment.",
        "fallow purse fill 5000",
    ),
    Command(
        "deposit make",
        "deposit:make",
        "Lock ecash to a node, so that it lends you more, or to a client, so that it relies on your nodes.",
        "fallow deposit make /ip4/192.0.2.1/tcp/4001/p2p/12D3K... 250000 --for 30d --reference spring",
    ),
    Command(
        "deposit list",
        "deposit:list_",
        "Show deposits: how much, whose, until when, and what became of each.",
        "fallow deposit list --state ~/car",
    ),
    Command(
        "deposit back",
        "deposit:back",
        "Take back a deposit whose time is over.",
        "fallow deposit back spring",
    ),
    Command(
        "deposit rely",
        "relying:rely",
        "Rely on an owner who has locked ecash to you.",
        "fallow deposit rely theirs.means --owner 5f0c... --least 100000",
    ),
    Command(
        "settle",
        "settle:settle",
        "Show who owes a node's owner what, and write down what has come in.",
        "fallow settle 5f0c... 250000 --state ~/car --rail bank --reference 'transfer of 28 November'",
    ),
    Command(
        "bundle build",
        "bundle:build",
        "Build bundles on this machine, by name or from a model's file or folder, and trust them.",
        "fallow bundle build minilm-l6 ./llama.gguf",
    ),
    Command(
        "bundle list",
        "bundle:list_",
        "Show the bundles on this machine.",
        "fallow bundle list",
    ),
    Command(
        "bundle inspect",
        "bundle:inspect",
        "Show one bundle: entries, programs, sizes, licence, publisher.",
        "fallow bundle inspect minilm-l6",
    ),
    Command(
        "bundle calibrate",
        "calibrate:calibrate",
        "Measure what a text bundle's tolerance tells apart, and publish it with its error rates.",
        "fallow bundle calibrate smollm2-135m-instruct --plot differences.svg",
    ),
    Command(
        "bundle fetch",
        "fetch:fetch",
        "Fetch a bundle from the nodes that have it, checked chunk by chunk.",
        "fallow bundle fetch minilm-l6 --max-rate 2MB",
    ),
    Command(
        "bundle export",
        "shelf:export",
        "Write a bundle into one file.",
        "fallow bundle export minilm-l6 minilm-l6.fallow",
    ),
    Command(
        "bundle import",
        "shelf:import_",
        "Take in a bundle from one file.",
        "fallow bundle import minilm-l6.fallow",
    ),
    Command(
        "bundle pin",
        "shelf:pin",
        "Keep a bundle, however little room there is.",
        "fallow bundle pin minilm-l6",
    ),
    Command(
        "bundle unpin",
        "shelf:unpin",
        "Let a bundle go when room is needed.",
        "fallow bundle unpin minilm-l6",
    ),
    Command(
        "bundle remove",
        "shelf:remove",
        "Remove a bundle from this machine.",
        "fallow bundle remove minilm-l6",
    ),
    Command(
        "bundle gc",
        "shelf:gc",
        "Make room: leftovers go, then the bundles used longest ago.",
        "fallow bundle gc --to 20GB",
    ),
    Command(
        "trust add",
        "trust:add",
        "Trust a publisher's bundle under a name of your own.",
        "fallow trust add bafkr4i... --name my-model --publisher 5f0c...",
    ),
    Command(
        "trust owner",
        "trust:owner",
        "Rely on an owner of nodes: an anchor of quorums, and a judge where the node agrees.",
        "fallow trust owner 5f0c... --name my-sister",
    ),
    Command(
        "trust list",
        "trust:list_",
        "Show which names this machine trusts, and whose they are.",
        "fallow trust list",
    ),
    Command(
        "owner show",
        "owner:show",
        "Show the public key of a key file, or make one.",
        "fallow owner show owner.key",
    ),
    Command(
        "owner issue",
        "owner:issue",
        "Let another key sign your nodes' mandates, so that your own can stay locked away.",
        "fallow owner issue 5f0c... --key owner.key --out issuer.cose",
    ),
    Command(
        "node init",
        "node_init:init",
        "Write a node's settings and keys: five questions, or flags.",
        "fallow node init ~/car --kind vehicle --sensor viss=ws://127.0.0.1:8090",
    ),
    Command(
        "node run",
        "node:run",
        "Lend this machine: run a node until it is stopped.",
        "fallow node run --config node.toml",
    ),
    Command(
        "node status",
        "node:status",
        "Show what a node on this machine is doing.",
        "fallow node status --state ~/car",
    ),
    Command(
        "node drive",
        "node:drive",
        "Take the machine back: the node yields at once. Stands for a car's gear out of park.",
        "fallow node drive --state ~/car",
    ),
    Command(
        "node park",
        "node:park",
        "Lend the machine again after `drive`.",
        "fallow node park --state ~/car",
    ),
    Command(
        "node why",
        "node:why",
        "Show why the machine is or is not lent: reasons, readings, budget.",
        "fallow node why --state ~/car",
    ),
    Command(
        "node page",
        "node:page",
        "Show where the owner's page is: state, earnings, preferences, pause and opt-out, on this machine.",
        "fallow node page --state ~/car --open",
    ),
    Command(
        "node pause",
        "node:pause",
        "Lend nothing for a while.",
        "fallow node pause 2h --state ~/car",
    ),
    Command(
        "node resume",
        "node:resume",
        "End a pause.",
        "fallow node resume --state ~/car",
    ),
    Command(
        "node opt-out",
        "node:opt_out",
        "Lend nothing until `opt-in`.",
        "fallow node opt-out --state ~/car",
    ),
    Command(
        "node opt-in",
        "node:opt_in",
        "Lend again after `opt-out`.",
        "fallow node opt-in --state ~/car",
    ),
    Command(
        "grid shed",
        "grid:shed",
        "Ask the machines of a zone to draw less: a shed order, signed and told to those who trust the key.",
        "fallow grid shed depot-7 --key grid.key --cap 0 --for 1h --reason 'feeder 12 is overloaded'",
    ),
    Command(
        "grid publish",
        "grid:publish_file",
        "Tell those who trust its key of a shed order that was signed before.",
        "fallow grid publish order.cose",
    ),
    Command(
        "verifier run",
        "verifier:run",
        "Judge disputes between others, by running the work again, until it is stopped.",
        "fallow verifier run --config verifier.toml",
    ),
    Command(
        "doctor",
        "doctor:doctor",
        "See what this machine has for lending itself, and how the mesh sees it.",
        "fallow doctor --node ~/car",
    ),
    Command(
        "testnet up",
        "testnet:up",
        "Start a network of real nodes on this machine.",
        "fallow testnet up --dir /tmp/net --nodes 6 --liars 1 --kinds vehicle=2,robot=2,site=1,host=1 --detach",
    ),
    Command(
        "testnet status",
        "testnet:status",
        "Show a test network's nodes.",
        "fallow testnet status --dir /tmp/net",
    ),
    Command(
        "testnet down",
        "testnet:down",
        "Stop a test network.",
        "fallow testnet down --dir /tmp/net",
    ),
    Command(
        "simulate",
        "simulate:simulate",
        "Simulate the mesh under virtual time, from a scenario and a seed: once, or over many seeds and settings.",
        "fallow simulate steady --seed 5 --sweep churn=0.1:0.5:5 --seeds 20 --out results",
    ),
    Command(
        "testnet fault",
        "testnet:fault",
        "Make one of a test network's nodes fail: "
        "kill, restart, freeze, drive-away, full-disk, clock-skew, blackhole, partition, slow, lossy.",
        "fallow testnet fault 2-vehicle freeze --dir /tmp/net --seconds 5",
    ),
    Command(
        "testnet heal",
        "testnet:heal",
        "Mend what `fault` broke.",
        "fallow testnet heal 2-vehicle --dir /tmp/net",
    ),
    Command(
        "testnet logs",
        "testnet:log",
        "Show what a test network's nodes wrote down, in one order of time.",
        "fallow testnet logs 2-vehicle,network --dir /tmp/net --follow",
    ),
    Command(
        "testnet chaos",
        "chaos:chaos",
        "Run a test network under random faults with clients beside it, and report what came of it.",
        "fallow testnet chaos --dir /tmp/chaos --minutes 10 --seed 7 --adversaries liar=1",
    ),
    Command(
        "testnet watch",
        "watch:watch",
        "Watch a test network live, in the terminal or as a page.",
        "fallow testnet watch --dir /tmp/net --web",
    ),
    Command(
        "testnet export",
        "export:export",
        "Write a test network for a cluster: Kubernetes manifests, or a compose file.",
        "fallow testnet export --kubernetes --nodes 1000 --out cluster/",
    ),
)

GROUPS: Final = {
    "bundle": "Models as data: build, fetch, inspect, keep.",
    "trust": "Whose bundles this machine believes in.",
    "owner": "The key that is paid.",
    "node": "Lend this machine.",
    "grid": "Ask machines to draw less.",
    "purse": "Ecash to pay with.",
    "deposit": "Ecash that is locked until a time, as security.",
    "verifier": "Judge what others dispute.",
    "testnet": "A network of real nodes on this machine.",
}

ENVIRONMENT: Final = """\
FALLOW_BOOTSTRAP: addresses of nodes to join by, comma-separated (/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...).
FALLOW_HOME: where keys, bundles, wallet and trust list are kept (~/.fallow)."""
"""Settings that serve every command."""
