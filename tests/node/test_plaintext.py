"""The daemon passes prompts and answers on and never has them: its memory, its state and its log are searched."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from fallow.node.network.seam import Network
from fallow.protocol.codec import encode
from fallow.protocol.work import Work

from .conftest import Daemon, Home
from .raw_client import Ask, Conversation, Payer, profile_of

_PIECE = 2**24
_LONGEST = 1024
"""Bytes that pieces of a mapping overlap by: more than any form has."""


def forms(tokens: Sequence[int]) -> dict[str, bytes]:
    """How so many tokens could lie about: as this code encodes them, as arrays, as text."""
    assert len(tokens) >= 16
    return {
        "CBOR": b"".join(encode(token) for token in tokens),
        "bytes, or msgpack": bytes(tokens),
        "int32": b"".join(token.to_bytes(4, "little") for token in tokens),
        "int64": b"".join(token.to_bytes(8, "little") for token in tokens),
        "a list's text": ", ".join(map(str, tokens)).encode(),
        "JSON": ",".join(map(str, tokens)).encode(),
        "words": " ".join(map(str, tokens)).encode(),
    }


def memory(pid: int) -> Iterator[bytes]:
    """All that the process has mapped and can be read, in overlapping pieces."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as stream:
        for fields in (line.split() for line in maps):
            begin, end = (int(bound, 16) for bound in fields[0].split("-"))
            if not fields[1].startswith("r") or fields[-1] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            for start in range(begin, end, _PIECE):
                stream.seek(start)
                try:
                    yield stream.read(min(_PIECE + _LONGEST, end - start))
                except OSError:
                    break  # a device's, or gone meanwhile


def files(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


def found(pieces: Iterator[bytes], wanted: dict[str, bytes]) -> set[str]:
    """The names of what is there."""
    names = set()
    for piece in pieces:
        names |= {name for name, needle in wanted.items() if needle in piece}
    return names


@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is read by /proc")
@pytest.mark.spec("J-15", "J-17")
async def test_the_daemon_never_sees_a_prompt_or_an_answer(network: Network, home: Home, node: Daemon) -> None:
    chance = random.Random(0)
    prompt = tuple(chance.randrange(24, 128) for _ in range(48))
    (peer,) = network.peers()
    ask = Ask(Payer(await profile_of(network, peer)), home.chat, Work((prompt,)), max_tokens=48)
    with trio.fail_after(60):
        talk = await Conversation.begin(network, ask)
        await talk.run()
    assert len(talk.tokens) == 48
    secrets = {f"the prompt as {form}": needle for form, needle in forms(prompt[8:24]).items()}
    secrets |= {f"the answer as {form}": needle for form, needle in forms(talk.tokens[8:24]).items()}
    secrets |= {"the reply secret": ask.secret, "the salt": ask.salt}
    canary = {"the order's id": talk.order.id}
    assert found(memory(node.process.pid), secrets | canary) == set(canary)
    assert found(files(node.state), secrets | canary) == set(canary)
