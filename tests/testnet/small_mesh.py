"""A mesh of five real nodes for whoever needs one: two honest owners, three nodes that are adversaries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fallow.node.keys import load_or_create
from fallow.testnet import record
from fallow.testnet.plan import NodePlan, settings
from fallow.testnet.processes import process_of

BUNDLE = "tiny-chat"
FACES = [sys.executable, str(Path(__file__).with_name("many_faces.py"))]


@dataclass(frozen=True)
class Running:
    local: record.LocalNode

    @property
    def peer_id(self) -> str:
        return self.local.peer_id

    @property
    def state(self) -> Path:
        return self.local.folder

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / "node.log").read_text().splitlines()]


@dataclass
class SmallMesh:
    home: Path
    folder: Path
    nodes: dict[str, Running] = field(default_factory=dict)

    @property
    def bootstrap(self) -> list[str]:
        return list(self.nodes["honest"].local.addresses)

    def stranger(self, folder: Path) -> Path:
        """A home with this machine's bundles and trust, and keys and wallet of its own."""
        folder.mkdir()
        for name in ("store", "trust.toml"):
            if (self.home / name).exists():
                (folder / name).symlink_to(self.home / name)
        return folder


@contextmanager
def running(home: Path, folder: Path) -> Iterator[SmallMesh]:
    """The mesh, until the block ends. `faces` is each adversary in turn, as the order's seed says; `quantiser` is of the same
    owner and runs int8 weights; `colluder` is of another one, who colludes with `faces` and is honest otherwise."""
    mesh = SmallMesh(home, folder)
    started: dict[str, subprocess.Popen[bytes]] = {}
    owner_x = folder / "faces" / "owner.key"

    def start(name: str, worker: list[str], node: list[str], owner: Path | None = None) -> None:
        state = folder / name
        state.mkdir()
        bootstrap = mesh.bootstrap if mesh.nodes else []
        text = settings(NodePlan(name, "host", False), state, mesh.home, [BUNDLE], bootstrap)
        text += f"exit_with_stdin = true\nowner_key = {json.dumps(str(owner or state / 'owner.key'))}\n"
        text += f"worker_command = {json.dumps([*FACES, *worker])}\n" if worker else ""
        (state / "node.toml").write_text(text)
        with (state / "stderr.log").open("wb") as errors:
            started[name] = subprocess.Popen(
                [*(node or [sys.executable, "-P", "-m", "fallow.node"]), "--config", str(state / "node.toml")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    def ready(name: str, owner: Path | None = None) -> None:
        pipe = started[name].stdout
        assert pipe is not None
        line = pipe.readline()
        assert line, (folder / name / "stderr.log").read_text()
        said = json.loads(line)
        process = process_of(started[name].pid)
        assert process is not None
        key = bytes(load_or_create(owner or folder / name / "owner.key").verify_key).hex()
        local = record.LocalNode(
            said["peer_id"], key, "host", process.pid, process.started_ticks, str(folder / name),
            tuple(said["addresses"]), name == "faces",
        )  # fmt: skip
        mesh.nodes[name] = Running(local)

    try:
        start("honest", [], [])
        ready("honest")
        start("honest-too", [], [])
        start("faces", ["worker", "all"], [*FACES, "node"])
        start("quantiser", ["rounded", "sybil"], [], owner_x)
        start("colluder", ["worker", "colluder"], [])
        for name in ("honest-too", "faces", "quantiser", "colluder"):
            ready(name, owner_x if name == "quantiser" else None)
        record.write(folder, [node.local for node in mesh.nodes.values()])
        yield mesh
    finally:
        for process in started.values():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
        for process in started.values():
            process.wait(20)
            process.stdout.close()  # type: ignore[union-attr]  # asserted above
