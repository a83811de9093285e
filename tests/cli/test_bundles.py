"""Bundles between machines: fetched from the mesh, carried in a file, kept and given up."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fallow.node.engine.bundles import BundleStore
from fallow.node.trust import TrustList

from ..moments import pause
from .conftest import COMMAND, Shell
from .test_commands import failing


@pytest.fixture
def stranger(mesh: Shell, tmp_path: Path) -> Shell:
    """A machine that joins the same mesh and has nothing yet."""
    return Shell(tmp_path / "stranger", mesh.bootstrap)


@pytest.fixture
def cid(mesh: Shell) -> str:
    return TrustList.load(mesh.home).resolve("tiny-embed").cid


def test_a_bundle_is_fetched_by_name_where_it_is_trusted(mesh: Shell, stranger: Shell, cid: str) -> None:
    stranger.home.mkdir()
    shutil.copy(mesh.home / "trust.toml", stranger.home / "trust.toml")
    done = stranger.json("bundle", "fetch", "tiny-embed")
    assert (done["cid"], done["trusted"], done["wrong_chunks"]) == (cid, True, {})
    assert set(done["sources"]) <= {node["peer_id"] for node in mesh.nodes}
    assert sum(done["sources"].values()) == done["bytes_fetched"] > 0
    assert stranger("bundle", "inspect", "tiny-embed", "--check").returncode == 0
    again = stranger.json("bundle", "fetch", "tiny-embed")
    assert (again["bytes_fetched"], again["sources"]) == (0, {})


def test_a_bundle_that_nobody_vouches_for_is_fetched_and_not_trusted(mesh: Shell, stranger: Shell, cid: str) -> None:
    failing(stranger("bundle", "fetch", "tiny-embed"), "unknown_name")
    source = mesh.nodes[1]
    ran = stranger("bundle", "fetch", cid, "--from", source["peer_id"])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["tiny-embed", cid]
    assert "from 1 sources, 0 wrong chunks" in ran.stderr
    publisher = BundleStore(stranger.home / "store").open(cid).signed.signer.hex()
    assert f"fallow trust add {cid} --name NAME --publisher {publisher}" in ran.stderr
    assert stranger.json("bundle", "list")["bundles"][0]["trusted"] is False


def test_whoever_is_named_is_asked_without_a_mesh_to_join(mesh: Shell, tmp_path: Path, cid: str) -> None:
    alone = Shell(tmp_path / "alone")
    done = alone.json("bundle", "fetch", cid, "--from", mesh.bootstrap.split(",")[0])
    assert list(done["sources"]) == [mesh.nodes[0]["peer_id"]]
    assert "peer id" in failing(alone("bundle", "fetch", cid, "--from", "nonsense"), "peer_unreachable")
    failing(alone("bundle", "fetch", cid, "--to", "big"), "bad_config")


def test_another_publisher_than_the_trusted_one_is_refused_before_anything_is_fetched(
    stranger: Shell, cid: str
) -> None:
    stranger.json("trust", "add", cid, "--name", "mine", "--publisher", "aa" * 32)
    failing(stranger("bundle", "fetch", "mine"), "bundle_untrusted")
    assert stranger.json("bundle", "list") == {"bundles": []}


def test_ctrl_c_keeps_what_is_there_and_says_so(stranger: Shell, cid: str) -> None:
    command = [*COMMAND, "bundle", "fetch", cid, "--max-rate", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=stranger.environment) as process:
        manifest = stranger.home / "store" / "partial" / cid / "manifest"
        while not manifest.exists():
            assert process.poll() is None
            pause()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 130
    assert "goes on from there" in said
    assert "Traceback" not in said
    assert manifest.exists()


def test_a_bundle_travels_in_a_file(mesh: Shell, shell: Shell, tmp_path: Path, cid: str) -> None:
    file = tmp_path / "tiny.fallow"
    written = mesh.json("bundle", "export", "tiny-embed", file)
    assert (written["cid"], written["bytes"]) == (cid, file.stat().st_size)
    taken = shell.json("bundle", "import", file)
    assert (taken["cid"], taken["trusted"]) == (cid, False)
    file.write_bytes(file.read_bytes()[:-5])
    shell.json("bundle", "remove", "tiny-embed")
    assert "is cut short, or altered, at" in failing(shell("bundle", "import", file), "corrupt_chunk")
    assert shell.json("bundle", "list") == {"bundles": []}
    failing(shell("bundle", "import", tmp_path / "gone"), "bad_config")


def test_what_is_pinned_stays_and_the_rest_makes_room(mesh: Shell, shell: Shell, tmp_path: Path) -> None:
    for name in ("tiny-chat", "tiny-embed"):
        mesh.json("bundle", "export", name, tmp_path / name)
        shell.json("bundle", "import", tmp_path / name)
    shell.json("bundle", "pin", "tiny-chat")
    assert shell.json("bundle", "inspect", "tiny-chat")["pinned"] is True
    assert shell.json("bundle", "gc")["removed"] == []
    failing(shell("bundle", "gc", "--to", "10kB"), "store_full")
    removed = shell.json("bundle", "gc", "--to", f"{(tmp_path / 'tiny-chat').stat().st_size + 200_000}")
    assert len(removed["removed"]) == 1
    shell.json("bundle", "unpin", "tiny-chat")
    assert len(shell.json("bundle", "gc", "--to", "10kB")["removed"]) == 1
    failing(shell("bundle", "pin", "tiny-chat"), "bundle_not_built")


def test_what_a_running_node_uses_is_not_removed(mesh: Shell) -> None:
    before = mesh.json("bundle", "list")["bundles"]
    failing(mesh("bundle", "remove", "tiny-chat"), "already_running")
    assert mesh.json("bundle", "list")["bundles"] == before


def test_a_bundle_is_shown_as_a_person_wants_to_know_it(mesh: Shell, cid: str) -> None:
    shown = mesh("bundle", "inspect", "tiny-embed").stdout
    for word in (cid, "publisher", "licence", "provenance", "tolerance, value_micro", "weights", "pinned", "GFLOP"):
        assert word in shown
    said = mesh.json("bundle", "inspect", "tiny-embed")
    assert json.dumps(said)
    assert {"name", "role", "length", "flops"} <= set(said["programs"][0])
    assert said["trusted"] is True
