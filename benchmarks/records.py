"""Records signed, verified, encoded and decoded on one core, beside the two primitives alone: `python benchmarks/records.py`.

All of one record's measurements take turns, so that the machine's moods meet them alike; medians. The primitives are
PyNaCl's `SigningKey.sign` and `VerifyKey.verify` over the very bytes that the record's signature covers.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from nacl.signing import SigningKey

from fallow.protocol.bundle import Manifest
from fallow.protocol.checks import Attestation, Verdict
from fallow.protocol.codec import encode
from fallow.protocol.envelope import _PAYLOAD, _signed_bytes, sign, verify_untrusted
from fallow.protocol.grid import FeederRoster
from fallow.protocol.limits import MANIFEST_BYTES_MAX
from fallow.protocol.reading import read_untrusted
from fallow.protocol.receipts import Receipt
from fallow.protocol.schema import to_map

ROUNDS = 60
ROUND_S = 0.002
"""So long each measurement goes on in a round: many calls of the cheap ones."""
OVERHEAD_AIM = 0.35

KEY = SigningKey(b"\x01" * 32)


def main() -> None:
    print("| record | bytes | sign/s | PyNaCl | verify/s | PyNaCl | over PyNaCl | encode/s | decode/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, record in named_records():
        print(row(name, record), flush=True)


def row(name: str, record: Any) -> str:
    kind, signed = type(record), sign(record, KEY)
    payload = encode(to_map(record))
    message = _signed_bytes(kind.RECORD, signed.signer, signed.envelope[_PAYLOAD])
    signature = signed.envelope[-64:]
    times = take_turns(
        [
            lambda: sign(record, KEY),
            lambda: KEY.sign(message),
            lambda: verify_untrusted(kind, signed.envelope, signer=signed.signer, bytes_max=MANIFEST_BYTES_MAX),
            lambda: KEY.verify_key.verify(message, signature),
            lambda: encode(to_map(record)),
            lambda: read_untrusted(kind, payload, bytes_max=MANIFEST_BYTES_MAX),
        ]
    )
    over = median(whole / floor for whole, floor in zip(times[2], times[3], strict=True)) - 1
    per_s = [f"{1 / median(samples):,.0f}".replace(",", " ") for samples in times]
    missed = "" if over <= OVERHEAD_AIM else ": **missed**"
    cells = [name, len(signed.envelope), *per_s[:4], f"{over:+.0%}{missed}", *per_s[4:]]
    return f"| {' | '.join(map(str, cells))} |"


def take_turns(calls: list[Callable[[], object]]) -> list[list[float]]:
    """Seconds a call, for each of `calls`, once a round."""
    for call in calls:
        call()  # the first one makes the reader of its record
    counts = [max(1, round(ROUND_S / seconds(call, 3))) for call in calls]
    rounds = [[seconds(call, count) for call, count in zip(calls, counts, strict=True)] for _ in range(ROUNDS)]
    return [list(samples) for samples in zip(*rounds, strict=True)]


def seconds(call: Callable[[], object], count: int) -> float:
    """Of one call, over `count` of them. Processor time: others use this machine too."""
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / count


def named_records() -> Iterator[tuple[str, Any]]:
    """Each record as the tests have it, but what grows with the work at the size that it has in use."""
    for record in examples():
        match record:
            case Receipt():
                values = tuple(range(-90_000, 0, 2_813))
                yield "receipt of 32 tokens", replace(record, tokens=len(values), values_micro=values)
            case Attestation():
                values = tuple(range(-90_000, 0, 2_813))
                yield (
                    "attestation of 32 tokens",
                    replace(record, values_micro=values, gaps_micro=values, masses_ppm=values_of(range(32))),
                )
            case Manifest():
                chunks = tuple(bytes([index % 256]) * 32 for index in range(515))
                weights = replace(record.weights, length_bytes=len(chunks) << 20, chunks=chunks)
                names = tuple(f"model.layers.{index}.self_attn.q_proj.weight" for index in range(272))
                yield "manifest of 272 tensors, 515 chunks", replace(record, weights=weights, parameters=names)
            case Verdict():
                yield "verdict of 1 finding", record
                yield "verdict of 64 findings", replace(record, findings=record.findings * 64)
            case FeederRoster():
                yield "feeder-roster of 2", record
            case _:
                yield record.RECORD, record


def values_of(numbers: range) -> tuple[int, ...]:
    return tuple(1000 * number for number in numbers)


def examples() -> tuple[Any, ...]:
    path = Path(__file__).parent.parent / "tests/protocol/records.py"
    spec = importlib.util.spec_from_file_location("fallow_example_records", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    records: tuple[Any, ...] = module.RECORDS
    return records


if __name__ == "__main__":
    main()
