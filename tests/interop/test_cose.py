"""An unrelated COSE library reads what we sign, and writes, byte for byte, what we would."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fallow.protocol.codec import encode
from fallow.protocol.envelope import sign, verify_untrusted
from fallow.protocol.schema import to_map

HERE = Path(__file__).parent
INSTALL_S = 120

_spec = importlib.util.spec_from_file_location("fallow_test_records", HERE.parent / "protocol/records.py")
assert _spec and _spec.loader
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

EXAMPLES = pytest.mark.parametrize("record", examples.RECORDS, ids=lambda record: record.RECORD)
Ask = Callable[..., dict[str, str]]


def missing(why: str) -> NoReturn:
    """Left out with the reason, or a failure where nothing may be left out."""
    (pytest.fail if os.environ.get("FALLOW_NEED_ALL") else pytest.skip)(why)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A question to the library, in its own process and environment."""
    try:
        installed = subprocess.run(
            [HERE / "install.sh", sys.executable], capture_output=True, text=True, timeout=INSTALL_S
        )
    except subprocess.TimeoutExpired:
        missing(f"the COSE library's environment was not made within {INSTALL_S} s")
    if installed.returncode:
        missing(f"the COSE library's environment cannot be made: {installed.stderr.strip()[-300:]}")
    python = HERE.parents[1] / "build/interop/bin/python"
    command = [python, "-I", HERE / "cose_reader.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin and reader.stdout
        requests, answers = reader.stdin, reader.stdout

        def ask(**request: str) -> dict[str, str]:
            print(json.dumps(request), file=requests, flush=True)
            answer: dict[str, str] = json.loads(answers.readline())
            return answer

        with closing(requests):
            yield ask


@EXAMPLES
def test_it_verifies_what_we_sign(record: Any, ask: Ask) -> None:
    signed = sign(record, examples.KEY)
    question = {"do": "verify", "envelope": signed.envelope.hex(), "key": signed.signer.hex()}
    aad = f"fallow/1/{record.RECORD}"
    assert ask(**question, aad=aad) == {"payload": encode(to_map(record)).hex()}
    assert "refused" in ask(**question, aad="fallow/1/other")
    assert "refused" in ask(**{**question, "key": examples.B.hex()}, aad=aad)
    altered = signed.envelope[:-1] + bytes([signed.envelope[-1] ^ 1])
    assert "refused" in ask(**{**question, "envelope": altered.hex()}, aad=aad)


@EXAMPLES
def test_it_signs_what_we_verify(record: Any, ask: Ask) -> None:
    signed = sign(record, examples.KEY)
    answer = ask(
        do="sign",
        key=signed.signer.hex(),
        seed=bytes(examples.KEY).hex(),
        payload=encode(to_map(record)).hex(),
        aad=f"fallow/1/{record.RECORD}",
    )
    envelope = bytes.fromhex(answer["envelope"])
    assert verify_untrusted(type(record), envelope, signer=signed.signer) == signed
