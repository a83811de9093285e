"""The settings of a node, from `node.toml`; whatever is wrong with one is said by its name."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..protocol.bundle import CALL, GENERATE, SCORE
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import CHECKER, EXECUTOR, RELAY, ROLES
from ..protocol.limits import ADDRESSES_MAX, CANDIDATES_MAX, DEVICES_MAX, HOLD_MS_MAX, PRICES_MAX
from .costs import Costs, EntryPrice
from .credit import STRANGERS_PPM
from .engine.messages import JOBS_MAX
from .engine.sandbox import Policy
from .grid.config import GridConfig, parse_grid
from .network.reach import DIRECT, RELAYED, WANTED, WAYS, Caps
from .power.config import PowerConfig, parse_power
from .rails.opening import NO_RAILS, RailSettings, rail_settings
from .rules import preferences
from .rules.preferences import Preferences
from .sensors.config import SensorConfig, parse_sensors
from .settings import SettingError, bad, flag, integer, located, only, public_keys, strange, text, texts, word

KINDS = ("vehicle", "robot", "site", "host")
GEOHASH = frozenset("0123456789bcdefghjkmnpqrstuvwxyz")
UCR_MAX = 10**12
"""No price has more: with the longest job it still fits an integer that every language holds."""
WATTS_MAX = 100_000
"""A rack of accelerators; whoever lends more runs several nodes."""
MARGIN_PPM_MAX = 100_000_000
"""A hundred times the cost."""
SERVED_MAX = PRICES_MAX // 3
"""Each bundle may have three prices, and the price list has its bound."""
SETTLE_S = {"vehicle": 300, "robot": 60}
"""A driver who only moves the car, or a robot between two errands, should not cost a model load each time."""
SETTLE_SENSED_S = 300
"""What moves in a signal once often moves again: any machine with sensors waits, unless its owner says how long."""
REACH = {"vehicle": RELAYED, "robot": RELAYED}
"""What moves or lives with people is not to be found by its address."""
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
LAN_KINDS = ("site", "host")
"""What stays where it is tells its neighbours nothing by being there. A vehicle would tell each car park that it has come."""
RELAYS_MAX = 4
"""Each of them has a place in a profile of 16 addresses, and a connection that is kept open."""
FETCH = ("trusted", "never")
LOOPBACK = ("127.0.0.1", "[::1]")
FRIENDS_MAX = 256
"""A household, a club, a small company: whoever lends to more of them wants a history of each."""
DAY_MS = 24 * 3600 * 1000
HELD_PERCENT, HOLD_DAYS = 50, 7
"""What deters is what is held; half of a week's pay lets a proven node's work pass with one window in fifty checked."""
BYTES_MAX = 2**50
"""A pebibyte: no machine that lends itself has more, and no link moves so much in a second."""


DEFAULT_PRICES: Mapping[str, EntryPrice] = {
    GENERATE: EntryPrice(input_token_ucr=1, output_token_ucr=4),
    # A prefill over the transcript: what it costs the node, it costs the client.
    SCORE: EntryPrice(input_token_ucr=1, checked_token_ucr=1),
    CALL: EntryPrice(call_ucr=1, input_token_ucr=1),
}


@dataclass(frozen=True, slots=True)
class Config:
    """One node's settings."""

    state: Path
    """Keys, journal, log and control socket; one running node each."""
    bundles: tuple[str, ...]
    """Names of the trust list, or CIDs on it."""
    home: Path
    store: Path
    owner_key: Path
    """Signs this node's mandates: the owner's own key or, with `issuer`, one that the owner has entitled to."""
    issuer: Path | None = None
    """The record by which the owner entitled it."""
    listen: tuple[str, ...] = LISTEN
    bootstrap: tuple[str, ...] = ()
    """Whom to join by. Where the file says nothing, `FALLOW_BOOTSTRAP` does; none: the node begins a mesh of its own."""
    kind: str | None = None
    region: str = ""
    roles: tuple[str, ...] = (EXECUTOR, CHECKER)
    jobs_max: int = 4
    settle_s: int = 0
    sandbox: Policy = Policy.REQUIRED
    """For bundles of strangers: those that are neither this machine's own nor on the package's list."""
    spare_worker: bool = True
    """The next worker is started ahead of its time, so that the machine is of use again as soon as it may be lent. It holds
    some 100 MiB while it waits, also while the owner uses the machine."""
    batch_unproven: bool = False
    """Jobs of different clients share a run of programs, too, of which it is not proven that they cannot see one another."""
    accelerator: int | None = None
    """Which one the worker uses, where there are several: a node for each. None: all that it finds."""
    accelerators: tuple[int, ...] = ()
    """Those that the worker uses together, for bundles that lie over several. On a CPU, as many shares of it."""
    worker_command: tuple[str, ...] = ()
    """Instead of the node's own worker; for test networks."""
    exit_with_stdin: bool = False
    """The node ends as by SIGTERM when its standard input does: no test network outlives the one who started it."""
    prices: Mapping[str, EntryPrice] = field(default_factory=lambda: DEFAULT_PRICES)
    """For every bundle."""
    costs: Costs | None = None
    """What an hour of work costs the owner: entries that `prices` does not name are priced by it, for each bundle its own."""
    priced: frozenset[str] = frozenset()
    """Entries that `prices` names."""
    strangers_ppm: int = STRANGERS_PPM
    """Of what the node can earn in a day, what clients without a settled history may take on credit, all together in a day."""
    friends: tuple[bytes, ...] = ()
    """Client keys that need no history here: the owner's own, say."""
    held_percent: int = HELD_PERCENT
    hold_days: int = HOLD_DAYS
    """Of each job's pay, at most so much may a client hold back for so long, until it falls due by itself; nothing if there
    are not at least three judges on whom both agree, for nobody else could forfeit it."""
    arbiters: tuple[bytes, ...] = ()
    """Public keys of owners of verifiers by whom this node lets itself be judged."""
    rails: RailSettings = NO_RAILS
    """Where its owner is paid beside the ledger of mutual debts."""
    fetch: str = "trusted"
    """Of `bundles` and `fetch_bundles`, what is trusted and not in the store comes from other nodes; or `never`."""
    fetch_bundles: tuple[str, ...] = ()
    """Names or CIDs as in `bundles`: kept here for others to fetch, not run."""
    store_bytes_max: int = 0
    """Of the whole store; to fetch, what was used longest ago is given up. 0: the disk's end, less a reserve."""
    max_bytes_sec_down: int = 0
    max_bytes_sec_up: int = 0
    """Of bundles, to and from all peers together. 0: no bound."""
    daily_xfer_limit_mb: int = 0
    """Of bundles, both ways together, in `daily_xfer_period_days` days; a megabyte has 10^6 bytes. 0: no bound."""
    daily_xfer_period_days: int = 1
    reach: str = DIRECT
    """How others come to this node: `direct`, `relayed` or `auto`. Vehicles and robots are `relayed` unless this says
    otherwise: nobody then learns from the mesh where they are."""
    announce: tuple[str, ...] = ()
    """Where others dial this node, if that is not where it listens: a router forwards there."""
    relays: int = WANTED
    """Of others, to be reached through at one time."""
    hole_punching: bool = True
    """Whether it tries for a direct way to those whose jobs it runs; they learn its address by that."""
    unmetered_only: bool = False
    """The machine is lent only while NetworkManager says that the default route's link is not metered."""
    starlink: bool = False
    """A Starlink dish is asked for its status, at its own address on the network behind it."""
    lan: bool = False
    """Nodes on the same LAN find this one, and it them, by multicast DNS. Sites and hosts that listen on more than this machine
    do unless this says otherwise."""
    preferences: Preferences = field(default_factory=Preferences)
    """What the owner wants of the machine, beyond the above."""
    sensors: tuple[SensorConfig, ...] = ()
    """What is read of it."""
    power: PowerConfig = field(default_factory=PowerConfig)
    """What it draws for its work."""
    grid: GridConfig = field(default_factory=GridConfig)
    """Whose word counts when the grid needs its power back, and with whom it is shared."""
    page: str = ""
    """Where the owner's page is shown: HOST:PORT of loopback, of which port 0 is any free one. Empty: nowhere."""
    diary: bool = True
    """Whether it is kept, for this machine alone, what was known of it and what its work drew: for the page, and for what other
    preferences would have brought."""
    relay: Caps = field(default_factory=Caps)
    """What it lends to others as a relay, if that is among its `roles`."""

    @property
    def is_relay(self) -> bool:
        return RELAY in self.roles


def default_home() -> Path:
    """`FALLOW_HOME`, or `.fallow` in the user's home directory. Raises `ConfigError(bad_config)` if that is a file."""
    home = Path(os.environ.get("FALLOW_HOME") or Path.home() / ".fallow")
    if not _can_be_directory(home):
        raise ConfigError(Code.BAD_CONFIG, f"FALLOW_HOME: {home} is a file, or below one; it must be a directory.")
    return home


def default_bootstrap() -> tuple[str, ...]:
    """The addresses in `FALLOW_BOOTSTRAP`, separated by commas."""
    return tuple(address for part in os.environ.get("FALLOW_BOOTSTRAP", "").split(",") if (address := part.strip()))


def _can_be_directory(path: Path) -> bool:
    """Whether the path, or else the nearest thing above it that is there, is a directory."""
    # Not Path.exists: that raises where a directory above must not be searched; what comes to use it says that better.
    lineage = (path, *path.absolute().parents)
    return os.path.isdir(next(each for each in lineage if os.path.exists(each)))  # noqa: PTH110, PTH112


def load(path: Path) -> Config:
    """The settings in the file; paths in it count from its directory. Raises `ConfigError(bad_config)`."""
    try:
        written = path.read_text("utf-8")
        table = tomllib.loads(written)
    except OSError as error:
        raise ConfigError(
            Code.BAD_CONFIG,
            f"The settings {path} cannot be read: {error.strerror}; `fallow node init DIR` writes some.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Code.BAD_CONFIG, f"{path} is not TOML: {error}.") from None
    try:
        return parse(table, path.parent.absolute())
    except SettingError as error:
        raise located(error, path, written) from None


def parse(table: Mapping[str, object], base: Path) -> Config:
    """The settings in the table. Raises `ConfigError(bad_config)` naming the setting."""
    only(table, [*Config.__dataclass_fields__])
    state = _directory(table, "state", base, None)
    home = _directory(table, "home", base, None if "home" in table else default_home())
    kind = word(table, "kind", KINDS)
    sensors = parse_sensors(table, base)
    settle_s = SETTLE_S.get(kind or "", SETTLE_SENSED_S if sensors else 0)
    return Config(
        state=state,
        bundles=texts(table, "bundles", (), SERVED_MAX),
        home=home,
        store=_directory(table, "store", base, home / "store"),
        owner_key=_path(table, "owner_key", base, state / "owner.key"),
        issuer=_path(table, "issuer", base, None) if "issuer" in table else None,
        listen=_addresses(table, "listen", LISTEN),
        bootstrap=texts(table, "bootstrap", default_bootstrap(), 64),
        kind=kind,
        region=_region(table),
        roles=_roles(table),
        jobs_max=integer(table, "jobs_max", 4, 1, JOBS_MAX),
        settle_s=integer(table, "settle_s", settle_s, 0, 24 * 3600),
        sandbox=Policy(word(table, "sandbox", tuple(Policy)) or Policy.REQUIRED),
        spare_worker=flag(table, "spare_worker", default=True),
        batch_unproven=flag(table, "batch_unproven"),
        accelerator=integer(table, "accelerator", 0, 0, DEVICES_MAX - 1) if "accelerator" in table else None,
        accelerators=_accelerators(table),
        worker_command=texts(table, "worker_command", (), 64),
        exit_with_stdin=flag(table, "exit_with_stdin"),
        prices=_prices(table),
        costs=_costs(table),
        priced=frozenset(_prices(table)) & set(_table(table, "prices")),
        strangers_ppm=integer(table, "strangers_ppm", STRANGERS_PPM, 0, 1_000_000),
        friends=public_keys(table, "friends", FRIENDS_MAX),
        held_percent=integer(table, "held_percent", HELD_PERCENT, 0, 100),
        hold_days=integer(table, "hold_days", HOLD_DAYS, 0, HOLD_MS_MAX // DAY_MS),
        arbiters=public_keys(table, "arbiters", CANDIDATES_MAX),
        rails=rail_settings(table.get("rails", {})),
        fetch=word(table, "fetch", FETCH) or "trusted",
        fetch_bundles=texts(table, "fetch_bundles", (), SERVED_MAX),
        store_bytes_max=integer(table, "store_bytes_max", 0, 0, BYTES_MAX),
        max_bytes_sec_down=integer(table, "max_bytes_sec_down", 0, 0, BYTES_MAX),
        max_bytes_sec_up=integer(table, "max_bytes_sec_up", 0, 0, BYTES_MAX),
        daily_xfer_limit_mb=integer(table, "daily_xfer_limit_mb", 0, 0, BYTES_MAX // 10**6),
        daily_xfer_period_days=integer(table, "daily_xfer_period_days", 1, 1, 366),
        reach=_reach(table, kind),
        announce=_addresses(table, "announce"),
        relays=integer(table, "relays", WANTED, 1, RELAYS_MAX),
        hole_punching=flag(table, "hole_punching", default=True),
        unmetered_only=flag(table, "unmetered_only"),
        starlink=flag(table, "starlink"),
        lan=flag(table, "lan", default=kind in LAN_KINDS and not _listens_here_only(table)),
        preferences=preferences.parse(table, kind, sensed=bool(sensors)),
        sensors=sensors,
        power=parse_power(table),
        grid=parse_grid(table, base),
        page=_page(table),
        diary=flag(table, "diary", default=True),
        relay=_caps(table),
    )


def _path(table: Mapping[str, object], name: str, base: Path, default: Path | None) -> Path:
    value = table.get(name, str(default) if default else None)
    if not isinstance(value, str) or not value:
        raise bad(name, "must be a path" if name in table else "must be set; the node keeps its keys there")
    try:
        path = base / Path(value).expanduser()
    except RuntimeError:
        raise bad(name, f"{value} is in the home of a user who is not known here") from None
    if "\0" in value:
        raise bad(name, "no path has a null character")
    return path


def _page(table: Mapping[str, object]) -> str:
    value = text(table, "page", "", most=64)
    host, _, port = value.rpartition(":")
    digits = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    if value and (host not in LOOPBACK or not digits):
        raise bad(
            "page", f"must be a port of {', '.join(LOOPBACK)} such as 127.0.0.1:8781: it is for this machine alone"
        )
    return value


def _directory(table: Mapping[str, object], name: str, base: Path, default: Path | None) -> Path:
    path = _path(table, name, base, default)
    if not _can_be_directory(path):
        raise bad(name, f"{path} is a file, or below one; it must be a directory")
    return path


def _region(table: Mapping[str, object]) -> str:
    value = table.get("region", "")
    if not isinstance(value, str) or len(value) > 3 or not GEOHASH.issuperset(value):
        raise bad("region", "must be a geohash of at most 3 characters: nothing nearer is published")
    return value


def _roles(table: Mapping[str, object]) -> tuple[str, ...]:
    roles = texts(table, "roles", (EXECUTOR, CHECKER), len(ROLES))
    if not roles or not set(roles) <= set(ROLES):
        raise bad("roles", f"must name one or more of {', '.join(ROLES)}")
    return roles


def _accelerators(table: Mapping[str, object]) -> tuple[int, ...]:
    value = table.get("accelerators", [])
    known = range(DEVICES_MAX)
    if not isinstance(value, list) or not all(type(each) is int and each in known for each in value):
        raise bad("accelerators", f"must be a list of numbers from 0 to {DEVICES_MAX - 1}")
    if len(set(value)) != len(value) or (value and "accelerator" in table):
        raise bad("accelerators", "names each of the accelerators once, and goes without `accelerator`")
    return tuple(value)


def _reach(table: Mapping[str, object], kind: str | None) -> str:
    reach = word(table, "reach", WAYS) or REACH.get(kind or "", DIRECT)
    if reach == RELAYED and RELAY in _roles(table):
        raise bad("roles", 'a node that is reached through relays cannot be one; set `reach = "direct"` if it can be')
    return reach


def _listens_here_only(table: Mapping[str, object]) -> bool:
    """Whether no other machine can dial it: a test network keeps to itself, whatever else is on the LAN."""
    listen = _addresses(table, "listen", LISTEN)
    return all(address.startswith(("/ip4/127.", "/ip6/::1/")) for address in listen)


def _addresses(table: Mapping[str, object], name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    addresses = texts(table, name, default, ADDRESSES_MAX)
    for address in addresses:
        if not re.fullmatch(r"/(ip4|ip6|dns[46]?)/[^/]+/tcp/[0-9]+", address):
            raise bad(name, f"{address} is not of the form /ip4/ADDRESS/tcp/PORT")
    return addresses


def _caps(table: Mapping[str, object]) -> Caps:
    value = table.get("relay", {})
    if not isinstance(value, dict):
        raise bad("relay", "must be a table")
    names = [each.name for each in fields(Caps)]
    only(value, names, "relay.", "cap")
    default = Caps()
    return Caps(*(integer(value, name, getattr(default, name), 1, BYTES_MAX, "relay.") for name in names))


def _table(table: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = table.get(name, {})
    return value if isinstance(value, dict) else {}


def _costs(table: Mapping[str, object]) -> Costs | None:
    if "costs" not in table:
        return None
    value, names = table["costs"], [each.name for each in fields(Costs)]
    if not isinstance(value, dict):
        raise bad("costs", "must be a table")
    if strange := sorted(set(value) - set(names)):
        raise bad(f"costs.{strange[0]}", f"there is no such cost; there are {', '.join(names)}")
    if missing := [name for name in ("watts", "kwh_ucr") if name not in value]:
        raise bad(f"costs.{missing[0]}", "must be set, for prices to follow from it")
    most = {"watts": WATTS_MAX, "margin_ppm": MARGIN_PPM_MAX}
    return Costs(*(integer(value, name, 0, 0, most.get(name, UCR_MAX), "costs.") for name in names))


def _prices(table: Mapping[str, object]) -> Mapping[str, EntryPrice]:
    value = table.get("prices", {})
    if not isinstance(value, dict):
        raise bad("prices", "must be a table of tables, one for each entry")
    return {entry: _price(entry, value.get(entry, {}), default) for entry, default in DEFAULT_PRICES.items()} | {
        entry: _price(entry, price, None) for entry, price in value.items() if entry not in DEFAULT_PRICES
    }


def _price(entry: str, table: object, default: EntryPrice | None) -> EntryPrice:
    prefix = f"prices.{entry}."
    if default is None:
        raise strange(prefix[:-1], DEFAULT_PRICES, "entry")
    if not isinstance(table, dict):
        raise bad(prefix[:-1], "must be a table")
    names = [each.name for each in fields(EntryPrice)]
    only(table, names, prefix, "price")
    return EntryPrice(*(integer(table, name, getattr(default, name), 0, UCR_MAX, prefix) for name in names))
