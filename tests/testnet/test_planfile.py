"""A plan as a file, and what is said of one that is none."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from fallow.node import config
from fallow.node.sensors.config import Scripted
from fallow.protocol.errors import ConfigError
from fallow.testnet import planfile
from fallow.testnet.days import moments
from fallow.testnet.plan import (
    NodePlan,
    Plan,
    client_adversaries,
    command_of,
    housed,
    plan_nodes,
    settings,
    toml,
    with_sensors,
)

WHOLE = """
bundles = ["tiny-chat", "tiny-embed"]
namespaces = true
day_s = 600
seed = 3
clients = ["non-payer"]

[[nodes]]
kind = "host"
region = "u33"

[[nodes]]
kind = "vehicle"
count = 2
owner = "ada"
nat = "random"
day = "08:00 drive, 18:00 park"
settings = { jobs_max = 2, prices = { generate = { output_token_ucr = 8 } } }

[[nodes]]
kind = "site"
name = "barn"
adversary = "liar"
"""


def test_a_file_says_everything_about_its_nodes(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(WHOLE)
    plan = planfile.load(tmp_path / "plan.toml")
    assert [node.name for node in plan.nodes] == ["0-host", "1-vehicle", "2-vehicle", "barn"]
    assert (plan.bundles, plan.namespaces, plan.day_s) == (("tiny-chat", "tiny-embed"), True, 600.0)
    assert plan.clients == ("non-payer",)
    text = settings(plan.nodes[1], tmp_path, tmp_path, plan.bundles, [], namespaces=True)
    read = config.parse(tomllib.loads(text), tmp_path)
    assert (read.jobs_max, read.prices["generate"].output_token_ucr, read.reach) == (2, 8, "relayed")
    assert config.parse(
        tomllib.loads(settings(plan.nodes[0], tmp_path, tmp_path, plan.bundles, [], namespaces=True)), tmp_path
    ).is_relay


def test_a_plan_survives_its_way_through_json() -> None:
    plan = planfile.parse(tomllib.loads(WHOLE))
    assert planfile.parse(json.loads(json.dumps(planfile.as_table(plan)))) == plan
    usual = Plan(housed(plan_nodes(8, adversaries={"sybil": 1})), namespaces=True)
    assert planfile.parse(json.loads(json.dumps(planfile.as_table(usual)))) == usual


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "1 to 32"),
        ("nodes = 3", "another type"),
        ("nodes = [3]", "list of tables"),
        ('[[nodes]]\nkind = "boat"', "one of vehicle"),
        ('[[nodes]]\nkind = "host"\ncount = 33', "from 1 to 32"),
        ('[[nodes]]\nkind = "host"\ncount = true', "another type"),
        ('[[nodes]]\nkind = "host"\ncolour = "red"', "no `colour`"),
        ('weather = 1\n[[nodes]]\nkind = "host"', "no `weather`"),
        ('[[nodes]]\nkind = "host"\nname = "../up"', "no slash"),
        ('[[nodes]]\nkind = "host"\nname = "a"\ncount = 2', "same name"),
        ('[[nodes]]\nkind = "host"\nadversary = "liar"', "must be honest"),
        ('[[nodes]]\nkind = "host"\nadversary = "non-payer"', "belongs to `clients`"),
        ('clients = ["liar"]\n[[nodes]]\nkind = "host"', "no client"),
        ('[[nodes]]\nkind = "host"\nnat = "thick"', "nat is one of"),
        ('[[nodes]]\nkind = "host"\nday = "noon drive"', "not of the form"),
        ('[[nodes]]\nkind = "host"\nsensors = "moon"', "sensors"),
        ('[[nodes]]\nkind = "host"\nday = "peak"\nsensors = "site"', "either"),
        ('day_s = -1\n[[nodes]]\nkind = "host"', "day_s"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        planfile.parse(tomllib.loads(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan\.toml"):
        planfile.load(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text("[[")
    with pytest.raises(ConfigError, match="not TOML"):
        planfile.load(tmp_path / "plan.toml")


def test_adversaries_take_as_many_seats_as_they_are_and_clients_none() -> None:
    nodes = plan_nodes(8, adversaries={"sybil": 1, "colluder": 1, "staller": 1, "non-payer": 2})
    wicked = [node for node in nodes if node.adversary]
    assert [node.adversary for node in wicked] == ["sybil"] * 3 + ["colluder"] * 2 + ["staller"]
    assert [node.owner for node in wicked] == ["sybil-0"] * 3 + [""] * 3
    assert client_adversaries({"non-payer": 2, "liar": 1}) == ("non-payer", "non-payer")
    assert command_of(wicked[-1])[-1] == "stops" and command_of(wicked[0]) == command_of(nodes[0]) == []


def test_what_moves_is_behind_routers_of_both_kinds_and_needs_a_relay() -> None:
    assert [node.nat for node in housed(plan_nodes())] == [None, None, "", "random", "", "random"]
    with pytest.raises(ConfigError, match="relays for them"):
        housed([NodePlan("0-robot", "robot")])


def test_a_node_follows_a_day_of_signals_as_long_as_all_others() -> None:
    text = 'day_s = 600\n[[nodes]]\nkind = "host"\n[[nodes]]\nkind = "vehicle"\nsensors = "commuter"'
    plan = planfile.parse(tomllib.loads(text))
    written = settings(plan.nodes[1], Path("/s"), Path("/s"), plan.bundles, [], day_s=plan.day_s)
    [sensor] = config.parse(tomllib.loads(written), Path("/s")).sensors
    assert isinstance(sensor, Scripted)
    assert (sensor.day, sensor.start_hour, sensor.speed) == ("commuter", 5.0, 144.0)
    assert moments(plan) == []
    again = toml(tomllib.loads(written) | {"listen": ["/ip4/127.0.0.1/tcp/7"]})
    assert config.parse(tomllib.loads(again), Path("/s")).sensors == (sensor,)


def test_days_of_signals_by_kind() -> None:
    kinds = {node.kind: node.sensors for node in with_sensors(plan_nodes(6))}
    assert kinds == {"vehicle": "commuter", "robot": "humanoid", "site": "site", "host": ""}
