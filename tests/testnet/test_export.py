"""Exported networks: what is written is what Kubernetes and Compose take, and what runs in the containers runs here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some
from nacl.signing import SigningKey

from fallow.models.recipes import RECIPES
from fallow.node import config
from fallow.node.keys import load
from fallow.protocol.errors import ConfigError
from fallow.protocol.identity import peer_id
from fallow.testnet.export import cluster, entry
from fallow.testnet.export.cluster import Cluster, check_load, check_names, parse_counts, parse_regions, plan_groups
from fallow.testnet.export.compose import KEY_FILE, compose_files
from fallow.testnet.export.kubernetes import manifests
from fallow.testnet.export.yaml_text import to_yaml

from .small_mesh import BUNDLE, SmallMesh

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = Path(__file__).with_name("schemas")
BIG = Cluster(plan_groups(1000, adversaries={"liar": 20, "denier": 5}), regions=("u33", "9q8"))


def read(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    for text in files.values():
        yield from yaml.safe_load_all(text)


def test_every_manifest_is_what_kubernetes_takes() -> None:
    schemas = json.loads((SCHEMAS / "kubernetes.json").read_text())
    kinds = []
    for manifest in read(manifests(BIG, "fallow-testnet")):
        schema = {**schemas["kinds"][manifest["kind"]], "$defs": schemas["$defs"]}
        jsonschema.Draft202012Validator(schema).validate(manifest)
        kinds.append(manifest["kind"])
    expected = ["ConfigMap", "Job", "Namespace", "Secret", "Service", *["StatefulSet"] * 7]
    assert sorted(kinds) == sorted(expected)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    """The excerpt still says something: a strict schema knows each name."""
    schemas = json.loads((SCHEMAS / "kubernetes.json").read_text())
    schema = {**schemas["kinds"]["StatefulSet"], "$defs": schemas["$defs"]}
    found = next(each for each in read(manifests(BIG, "n")) if each["kind"] == "StatefulSet")
    found["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError, match="resource"):
        jsonschema.Draft202012Validator(schema).validate(found)


def test_the_parts_of_a_cluster_know_each_other() -> None:
    objects = list(read(manifests(BIG, "net")))
    of = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    sets = [each for each in objects if each["kind"] == "StatefulSet"]
    assert sum(each["spec"]["replicas"] for each in sets) == 1000 + 25
    service = of["Service", "fallow"]["spec"]
    for each in sets:
        template = each["spec"]["template"]
        assert each["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in of
    told = of["ConfigMap", "fallow"]["data"]
    assert told["FALLOW_BOOTSTRAP_HOST"] == "first-0.fallow.net.svc"
    seed = bytes.fromhex(of["Secret", "fallow-first"]["stringData"]["bootstrap.key"])
    assert told["FALLOW_BOOTSTRAP_PEER"] == peer_id(bytes(SigningKey(seed).verify_key))
    holding = [each["metadata"]["name"] for each in sets if "secret" in json.dumps(each)]
    assert holding == ["first"]


def test_a_compose_file_is_what_compose_takes() -> None:
    files = compose_files(BIG)
    content = yaml.safe_load(files["compose.yaml"])
    schema = json.loads((SCHEMAS / "compose.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(content)
    replicas = {name: service["deploy"].get("replicas", 0) for name, service in content["services"].items()}
    assert sum(replicas.values()) == 1000 + 25
    assert content["secrets"]["bootstrap"]["file"] == f"./{KEY_FILE}"
    assert bytes.fromhex(files[KEY_FILE]) == bytes(BIG.key)
    assert [name for name, service in content["services"].items() if "secrets" in service] == ["first"]


TEXTS = some.text(max_size=20) | some.sampled_from(["yes", "Null", "0x1", "1e3", "~", "- a", "a: b", "#", "u33", "9q8"])
TREES = some.recursive(
    TEXTS | some.integers() | some.booleans(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_yaml_is_read_as_what_was_meant(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


@pytest.mark.parametrize(
    "plan",
    [
        lambda: plan_groups(1),
        lambda: plan_groups(10**6),
        lambda: plan_groups(6, {"vehicle": 0}),
        lambda: plan_groups(6, adversaries={"nobody": 1}),
        lambda: plan_groups(6, adversaries={"non-payer": 1}),
        lambda: plan_groups(6, adversaries={"sybil": 3}),
        lambda: plan_groups(6, adversaries={"liar": 0}),
        lambda: parse_counts("liar", "ADVERSARY"),
        lambda: parse_counts("liar=" + "9" * 5000, "ADVERSARY"),
        lambda: parse_regions("u33,toolong"),
        lambda: parse_regions("A"),
        lambda: check_names("Bad_Name", "image", ["tiny-chat"]),
        lambda: check_names("n", "image: x", ["tiny-chat"]),
        lambda: check_names("n", "image", ["a b"]),
        lambda: check_load(0, 8),
        lambda: check_load(10, 10**6),
    ],
)
def test_what_no_cluster_would_take_is_refused(plan: Any) -> None:
    with pytest.raises(ConfigError):
        plan()


def test_kinds_have_their_share_and_nobody_is_lost() -> None:
    for nodes in (2, 7, 100, 999):
        assert 1 + sum(group.count for group in plan_groups(nodes)) == nodes
    shares = {group.kind: group.count for group in plan_groups(601)}
    assert shares == {"vehicle": 200, "robot": 200, "site": 100, "host": 100}


def test_a_container_s_node_has_the_settings_that_it_was_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(BIG.seed_hex + "\n")
    told = {
        **BIG.environment(BIG.groups[0], "localhost"), "FALLOW_STATE": str(tmp_path / "state"),
        "FALLOW_HOME": str(tmp_path / "home"), "HOSTNAME": "vehicle-3",
    }  # fmt: skip
    command = entry.prepare({**told, "FALLOW_ADVERSARY": "quantiser"})
    read = config.load(tmp_path / "state" / "node.toml")
    assert command == [sys.executable, "-P", "-m", "fallow.node", "--config", str(tmp_path / "state" / "node.toml")]
    assert (read.kind, read.region, read.bundles) == (BIG.groups[0].kind, "9q8", cluster.BUNDLES)
    assert read.bootstrap == (f"/ip4/127.0.0.1/tcp/4001/p2p/{BIG.peer}",)
    assert read.worker_command[-1] == "int8"
    entry.prepare({**told, "FALLOW_KEY": str(key)})
    assert load(tmp_path / "state" / "node.key") == BIG.key
    assert config.load(tmp_path / "state" / "node.toml").bootstrap == ()
    key.write_text("00")
    with pytest.raises(ConfigError, match="32 bytes"):
        entry.prepare({**told, "FALLOW_KEY": str(key)})


def test_the_image_is_made_of_what_is_there() -> None:
    text = (ROOT / "testnet/export/Containerfile").read_text()
    built = re.search(r"bundle build ([a-z -]+?) \\?\n", text)
    assert built is not None
    assert tuple(built[1].split()) == cluster.BUNDLES
    assert set(cluster.BUNDLES) <= RECIPES.keys()
    assert f'"{entry.__name__}"' in text
    assert (ROOT / "constraints.txt").exists() and str(cluster.USER) in text
    assert cluster.HOME in text and cluster.STATE in text


def test_a_container_s_node_joins_and_its_load_is_served(small_mesh: SmallMesh, tmp_path: Path) -> None:
    """The two commands of the image, as processes of this machine."""
    where, _, first = small_mesh.bootstrap[0].rpartition("/p2p/")
    port = where.rpartition("/")[2]
    told = {
        "PATH": "/usr/bin:/bin", "FALLOW_BOOTSTRAP_HOST": "localhost", "FALLOW_BOOTSTRAP_PEER": first, "FALLOW_PORT": port,
        "FALLOW_HOME": str(small_mesh.home), "FALLOW_BUNDLE": BUNDLE, "FALLOW_STATE": str(tmp_path / "load"),
        "FALLOW_LOAD_S": "3", "FALLOW_LOAD_CLIENTS": "2",
    }  # fmt: skip
    command = [sys.executable, "-m", "fallow.testnet.export.entry"]
    load = subprocess.run([*command, "load"], env=told, capture_output=True, text=True, timeout=60)
    assert load.returncode == 0, load.stderr
    summary = json.loads(load.stdout)
    assert summary["completed"] == summary["verified"] > 0
    wrong = subprocess.run([*command, "neither"], env=told, capture_output=True, text=True, timeout=60)
    assert wrong.returncode != 0 and "node" in wrong.stderr
