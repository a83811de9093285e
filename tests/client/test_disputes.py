"""A liar with pay to lose: judges run the work again, and what was held is forfeited on both sides. On real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from fallow.client.disputing import read_reply
from fallow.node.store import earnings
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.messages import VERDICT_PROTOCOL, VerdictRequest, encode_message

from .test_policies import EVEN, MOODY, ODD, ask, nodes

JUDGES = 3
READY_S = 120.0


@contextmanager
def verifiers(folder: Path, home: Path, *more: str) -> Iterator[list[tuple[str, str]]]:
    """Owner and address of each of three verifiers."""
    with ExitStack() as stack:
        started = []
        for number in range(JUDGES):
            state = folder / f"judge-{number}"
            state.mkdir(parents=True)
            config = state / "verifier.toml"
            config.write_text(f'state = "{state}"\nhome = "{home}"\nbundles = ["tiny-chat"]\n')
            words = [
                sys.executable,
                "-P",
                "-m",
                "fallow.cli",
                "verifier",
                "run",
                "--config",
                str(config),
                "--json",
                *more,
            ]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            started.append(process)
        said = []
        for process in started:
            assert process.stdout is not None
            text = ""
            while not text.rstrip().endswith("}"):
                line = process.stdout.readline()
                assert line, "the verifier ended"
                text += line
            told = json.loads(text)
            said.append((told["owner"], told["addresses"][0]))
        yield said


@pytest.mark.spec("A-27", "P-28")
async def test_what_is_held_of_a_liar_is_forfeited(tmp_path: Path, new_home: Callable[[], Path]) -> None:
    home = new_home()
    with verifiers(tmp_path, home) as judges:
        with (home / "trust.toml").open("a") as stream:
            for number, (owner, address) in enumerate(judges):
                stream.write(f'\n[[owner]]\nname = "judge {number}"\nkey = "{owner}"\nverifier = "{address}"\n')
        agreed = {"arbiters": [owner for owner, _ in judges]}
        bad = {**agreed, "worker_command": MOODY, "sandbox": "off"}
        async with nodes(tmp_path / "net", home, agreed, agreed, agreed, bad) as ((first, second, _, liar), mesh):
            wallet, key = mesh._team.desk.wallet, peer_key_untrusted(liar.peer_id)
            await ask(mesh, ODD, [liar], "none")  # honest, and half of it is held
            held = wallet.held_ucr(key, mesh._team.desk.now_ms())
            channel = wallet.channel_to(key)
            assert channel is not None
            assert 0 < held <= channel.promised_ucr // 2 + 1

            caught = await ask(mesh, EVEN, [liar, second], "adaptive")
            assert caught.verdict is not None
            assert caught.verdict.outcome == "accepted"
            await mesh.looked_back()
            (forfeited,) = mesh._team.late.forfeited
            assert (forfeited.node, forfeited.ucr, forfeited.told) == (key, held, True)
            assert forfeited.judges >= 2
            assert wallet.held_ucr(key, mesh._team.desk.now_ms()) == 0
            assert mesh.owed_by_owner()[liar.owner] == channel.promised_ucr - held

            # Whoever accuses an honest node gets no signature: the verdict does not refute it.
            honest = await ask(mesh, EVEN, [first], "adaptive", 20)
            verdict = next(one for one in honest.proof.records if one.record.RECORD == "verdict")
            request = VerdictRequest(verdict.id, honest.proof.file(openings=True))
            await _refused(mesh, judges[0][1], request, Code.BAD_RECORD)
            closed = VerdictRequest(verdict.id, honest.proof.file())
            with pytest.raises(Refused):
                await _ask(mesh, judges[0][1], closed)
        lost = earnings(Path(liar.state))
        assert sum(row.forfeited_ucr for row in lost) == held


async def _ask(mesh: object, address: str, request: VerdictRequest) -> None:
    key = peer_key_untrusted(address.rpartition("/")[2])
    with trio.fail_after(60):
        stream = await mesh._team.desk.network.open(key, VERDICT_PROTOCOL, (address,))  # type: ignore[attr-defined]
        await stream.send(encode_message(request))
        await read_reply(stream)


async def _refused(mesh: object, address: str, request: VerdictRequest, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        await _ask(mesh, address, request)
    assert caught.value.code is code
