"""What is exported: the same bytes everywhere, and no trace of where."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import export

from fallow.models.export import PLATFORMS, export_program
from fallow.models.llama import Llama
from fallow.protocol.identity import content_hash

TINY = Llama(
    layers=2, dim=64, heads=4, kv_heads=2, head_dim=16, hidden=128, vocabulary=259, context=256,
    rope_base=1e4, norm_epsilon=1e-5, tied=False,
)  # fmt: skip

SCRIPT = """
from fallow.models.export import export_program
from fallow.models.llama import Llama
from fallow.protocol.identity import content_hash
tiny = Llama(2, 64, 4, 2, 16, 128, 259, 256, 1e4, 1e-5, False)
for draft in reversed(tiny.programs((32,), (1, 4), (64, 256))):
    print(draft.name, content_hash(export_program(draft, tiny.parameters(), tiny.state()).artifact).hex())
"""


@cache
def artifacts() -> dict[str, bytes]:
    return {
        d.name: export_program(d, TINY.parameters(), TINY.state()).artifact
        for d in TINY.programs((32,), (1, 4), (64, 256))
    }


def test_artifacts_are_the_same_from_another_directory_order_and_process(tmp_path: Path) -> None:
    jax.nn.softmax(jnp.ones((3, 4))).block_until_ready()  # something traced before
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    theirs = dict(line.split() for line in run.stdout.splitlines())
    assert theirs == {name: content_hash(artifact).hex() for name, artifact in artifacts().items()}


@pytest.mark.spec("B-3", "B-7")
def test_artifacts_hold_no_file_name_and_serve_every_platform() -> None:
    for artifact in artifacts().values():
        assert b".py" not in artifact
        assert str(Path(__file__).parents[2]).encode() not in artifact
        assert export.deserialize(bytearray(artifact)).platforms == PLATFORMS
