"""Which nodes a test network has."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fallow.node import config
from fallow.protocol.errors import ConfigError
from fallow.testnet.adversaries import find
from fallow.testnet.plan import parse_kinds, plan_nodes, settings


def test_the_usual_network_has_two_vehicles_two_robots_a_site_and_a_host() -> None:
    assert [plan.kind for plan in plan_nodes()] == ["host", "site", "vehicle", "vehicle", "robot", "robot"]


def test_the_bootstrap_stays_and_liars_come_last() -> None:
    plans = plan_nodes(liars=2)
    assert plans[0].kind == "host"
    assert [plan.liar for plan in plans] == [False] * 4 + [True] * 2


def test_a_number_alone_gives_the_usual_mix_as_often_as_needed() -> None:
    assert [plan.kind for plan in plan_nodes(3)] == ["host", "site", "vehicle"]
    assert sorted(plan.kind for plan in plan_nodes(12)) == sorted(2 * [plan.kind for plan in plan_nodes(6)])


def test_kinds_are_counted() -> None:
    assert parse_kinds("vehicle=2, robot=1") == {"vehicle": 2, "robot": 1}
    assert len({plan.name for plan in plan_nodes(3, kinds={"vehicle": 2, "robot": 1})}) == 3


@pytest.mark.parametrize("text", ["", "vehicle", "vehicle=x", "boat=1", "vehicle=-1", "vehicle=" + "9" * 5000])
def test_bad_kinds_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KIND=COUNT"):
        parse_kinds(text)


@pytest.mark.parametrize(
    ("nodes", "liars", "kinds"),
    [(0, 0, None), (33, 0, None), (2, 2, None), (2, -1, None), (3, 0, {"robot": 2}), (None, 0, {})],
)
def test_impossible_networks_are_refused(nodes: int | None, liars: int, kinds: dict[str, int] | None) -> None:
    with pytest.raises(ConfigError):
        plan_nodes(nodes, liars, kinds)


def test_the_settings_are_a_node_s(tmp_path: Path) -> None:
    text = settings(plan_nodes(2, liars=1)[1], tmp_path / 'a "b" ü', tmp_path, ["tiny-chat"], ["/ip4/127.0.0.1/tcp/1"])
    read = config.parse(tomllib.loads(text), tmp_path)
    assert read.state == tmp_path / 'a "b" ü'
    assert read.kind == "site"
    assert read.bundles == ("tiny-chat",)
    assert read.bootstrap == ("/ip4/127.0.0.1/tcp/1",)
    assert list(read.worker_command) == find("liar").settings()["worker_command"]
