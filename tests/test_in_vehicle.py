"""What docs/in-vehicle shows holds as far as it can be tried without ROS, a container engine or Yocto."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from fallow.cli import app
from fallow.node.config import parse

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/in-vehicle"
TEXT = (FOLDER / "README.md").read_text("utf-8")
LAUNCH = ast.parse((FOLDER / "fallow.launch.py").read_text("utf-8"))
IMAGE = (FOLDER / "Containerfile").read_text("utf-8").replace("\\\n", " ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_settings_hold(text: str, tmp_path: Path) -> None:
    config = parse(tomllib.loads(text), tmp_path)
    (sensor,) = config.sensors
    assert (config.kind, sensor.name) in (("robot", "rosbridge"), ("vehicle", "viss"))


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (FOLDER / target.partition("#")[0]).exists(), target
    assert "docs/in-vehicle/README.md" in (ROOT / "README.md").read_text("utf-8")


def test_the_launch_file_gives_a_description_and_starts_the_node_as_the_command_takes_it() -> None:
    functions = [node.name for node in LAUNCH.body if isinstance(node, ast.FunctionDef)]
    assert functions == ["generate_launch_description"]
    (command,) = [
        [each.value if isinstance(each, ast.Constant) else "node.toml" for each in word.value.elts]
        for word in ast.walk(LAUNCH)
        if isinstance(word, ast.keyword) and word.arg == "cmd" and isinstance(word.value, ast.List)
    ]
    assert command[0] == "fallow"
    app().parse_args(command[1:])


def test_the_launch_file_uses_what_it_imports_and_no_name_besides() -> None:
    imported = {alias.name for node in ast.walk(LAUNCH) if isinstance(node, ast.ImportFrom) for alias in node.names}
    loaded = {node.id for node in ast.walk(LAUNCH) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    own = {
        each.id
        for node in ast.walk(LAUNCH)
        if isinstance(node, ast.Assign)
        for each in node.targets
        if isinstance(each, ast.Name)
    }
    assert imported <= loaded <= imported | own


def test_the_image_starts_the_node_as_the_command_takes_it() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", IMAGE, re.MULTILINE)
    assert ast.literal_eval(entry)[0] == "fallow"
    app().parse_args(ast.literal_eval(entry)[1:])


def test_the_image_installs_what_this_project_calls_so() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installs = [shlex.split(line) for line in re.split(r"&&|\n", IMAGE) if "pip install" in line]
    ((*_, package),) = installs
    assert re.fullmatch(r"/src\[(\w+)\]", package) and package[5:-1] in extras
    assert "/src/constraints.txt" in installs[0] and (ROOT / "constraints.txt").exists()


def test_shell_lines_are_right_calls() -> None:
    for line in [line for block in blocks("sh") for line in block.splitlines()]:
        checked = subprocess.run(["sh", "-n", "-c", line], capture_output=True, check=False, timeout=10)
        assert checked.returncode == 0, line
    for command in re.findall(r"`(fallow [^`]+)`", TEXT):
        app().parse_args(shlex.split(command)[1:])
