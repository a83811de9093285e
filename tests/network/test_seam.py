"""The seam stays free of its implementation."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_seam_does_not_import_libp2p() -> None:
    program = "import sys, fallow.node.network.seam; print('libp2p' in sys.modules or 'multiaddr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_a_mesh_is_a_network() -> None:
    program = """
from typing import TYPE_CHECKING
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Network
missing = [name for name in vars(Network) if not name.startswith("_") and name not in dir(Mesh)]
print(sorted(missing))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (
        done.stdout.strip() == "['find', 'get', 'key', 'provide', 'put', 'reachability', 'request']"
    )  # these seven are set when one is made
