"""Every measurement, one after another: `python benchmarks/run.py`, or `make bench`. Prints Markdown.

Needs the bundles (`make bundles`) and a machine with nothing else to do.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path


def main() -> int:
    print(f"Measured on {date.today().isoformat()}: {machine()}.", flush=True)
    failed = 0
    for script in sorted(Path(__file__).parent.glob("*.py")):
        text = script.read_text()
        if script.name == Path(__file__).name or "__main__" not in text:  # a module that several of them share
            continue
        about = ast.get_docstring(ast.parse(text)) or ""
        print(f"\n## {script.stem}\n\n{about.splitlines()[0]}\n", flush=True)
        done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        print(done.stdout if done.stdout.startswith("|") else f"```\n{done.stdout}```", flush=True)
        failed += done.returncode != 0
    return 1 if failed else 0


def machine() -> str:
    """Processor, cores, memory and Python, as this machine says."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
