"""Whole nodes and the grid: a utility's VTN on the wire, and a grid key that one owner trusts and another does not."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import config
from fallow.node.keys import load_or_create
from fallow.node.log import wall_ms
from fallow.node.settings import SettingError
from fallow.protocol.envelope import sign
from fallow.protocol.errors import ConfigError
from fallow.protocol.grid import ShedOrder
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.grid import ShedExchange
from fallow.protocol.receipts import YIELDED
from fallow.protocol.streams import SHED_PROTOCOL
from fallow.protocol.work import Work
from tests.grid.vtn import CLIENT, SECRET, Vtn, interval, program, serving

from ..moments import look_again
from .conftest import Daemon, Home, Start, client_network, launch
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))


async def until(daemon: Daemon, state: str, reason: str = "") -> dict[str, Any]:
    """The node's own words, once it is in the state, for a reason that has these words in it."""
    with trio.fail_after(90):
        while True:
            try:
                said = await trio.to_thread.run_sync(daemon.command, "why")
            except ConfigError:  # it is starting
                await trio.sleep(0.05)
                continue
            if said["state"] == state and any(reason in each for each in [*said["reasons"], ""]):
                return said
            await trio.sleep(0.05)


def fallow(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FALLOW_HOME": str(folder / "home")}
    command = [sys.executable, "-P", "-m", "fallow.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)


async def test_a_node_keeps_to_its_utility_and_to_the_grid_key_that_its_owner_trusts(
    start: Start, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    key = load_or_create(tmp_path / "grid.key")
    async with serving(Vtn([program()])) as vtn:
        openadr = {
            "url": vtn.url, "client_id": CLIENT, "secret": str(tmp_path / "secret"), "ven_name": "car 7", "poll_s": 5.0,
        }  # fmt: skip
        grid = {"zones": ["home"], "keys": [bytes(key.verify_key).hex()], "openadr": openadr}
        heeding = await trio.to_thread.run_sync(partial(start, bundles=["tiny-embed"], grid=grid))
        other = await trio.to_thread.run_sync(partial(start, bundles=["tiny-embed"], bootstrap=[heeding.address]))
        said = await until(heeding, "ready")
        assert said["grid"][0].startswith("OpenADR as car 7: ")
        assert said["grid"][-1] == "shed orders of 1 grid keys for home: 0 known"

        now = {"start": "0001-01-01T00:00:00Z", "duration": "PT1H"}
        vtn.put("e1", [interval(("SIMPLE", 3))], intervalPeriod=now, eventName="peak")
        said = await until(heeding, "not-eligible", "OpenADR event peak: level 3, emergency")
        assert "OpenADR event peak: level 3" in " ".join(said["grid"])
        vtn.fault = "html"
        await trio.to_thread.run_sync(heeding.stop)
        process = launch(heeding.state.parent, home, bundles=["tiny-embed"], grid=grid)
        try:  # it takes no orders, so it does not say that it does
            again = Daemon(process, heeding.state, {})
            # Its VTN says nothing that can be read: what it asked for before goes on counting.
            said = await until(again, "not-eligible", "OpenADR event peak: level 3, emergency")
            assert said["grid"][0].startswith("OpenADR as car 7: ")
            assert (await until(other, "ready"))["grid"] == ["nobody is heeded"]
            vtn.fault = ""
            vtn.events.clear()
            await until(again, "ready")
        finally:
            process.kill()
            process.communicate()


async def test_a_shed_order_takes_the_machine_from_a_job_that_runs(start: Start, home: Home) -> None:
    key = SigningKey(b"\x07" * 32)
    grid = {"zones": ["home"], "keys": [bytes(key.verify_key).hex()]}
    node = await trio.to_thread.run_sync(partial(start, bundles=["tiny-chat"], grid=grid))
    async with client_network([node.address]) as network:
        peer = network.peers()[0]
        payer = Payer(await profile_of(network, peer))
        talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
        while not talk.pieces:
            await talk.next()
        now_ms = wall_ms()
        order = sign(ShedOrder("home", "peak", 1, False, 0, 0, now_ms, now_ms + 600_000, now_ms, "full"), key)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run)
            told = ShedExchange(order.signer, (), (order.envelope,))
            await network.request(peer, SHED_PROTOCOL, encode_message(told))
        assert talk.yielded is not None and talk.yielded.reason == "the owner needs the machine"
        assert talk.delivery.receipts[-1].record.end == YIELDED
    await until(node, "not-eligible", "(shed order for home: full)")


async def test_a_shed_order_by_command_reaches_who_trusts_the_key(start: Start, tmp_path: Path) -> None:
    key = load_or_create(tmp_path / "grid.key")
    grid = {"zones": ["home"], "keys": [bytes(key.verify_key).hex()]}
    other = await trio.to_thread.run_sync(partial(start, bundles=["tiny-embed"]))
    heeding = await trio.to_thread.run_sync(
        partial(start, bundles=["tiny-embed"], bootstrap=[other.address], grid=grid)
    )
    await until(heeding, "ready")
    words = ["grid", "shed", "home", "--key", str(tmp_path / "grid.key"), "--bootstrap", other.address]

    async def tell(*more: str) -> subprocess.CompletedProcess[str]:
        return await trio.to_thread.run_sync(fallow, tmp_path, *words, *more)

    with trio.fail_after(90):
        while (told := await tell("--cap", "0", "--reason", "the feeder is full")).returncode:
            assert "Nobody took it" in told.stderr, told.stderr  # the node has to be in the DHT first
    assert "zone home draws at most 0 W" in told.stdout and "1 of 1 machines asked took it" in told.stdout
    await until(heeding, "not-eligible", "(shed order for home: the feeder is full)")
    assert (await until(other, "ready"))["reasons"] == []
    assert (await tell("--cancel")).returncode == 0
    await until(heeding, "ready")

    path = tmp_path / "order.cose"
    written = await tell("--cap", "100", "--for", "2h", "--out", str(path))
    assert written.returncode == 0 and "draws at most 100 W" in written.stdout
    sent = await trio.to_thread.run_sync(
        fallow, tmp_path, "grid", "publish", str(path), "--bootstrap", other.address, "--json"
    )
    assert '"took": 1' in sent.stdout
    with trio.fail_after(60):
        while True:
            said = await trio.to_thread.run_sync(heeding.command, "why")
            if said["budget"].startswith("100 W (the grid asks for less until "):
                break
            await look_again()
    wrong = await tell("--for", "2d")
    assert wrong.returncode == 1 and "a shed order lasts at most a day" in wrong.stderr


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            '[grid]\nzone = ["home"]',
            "line 3: Setting `grid.zone`: there is no such setting; did you mean `grid.zones`?",
        ),
        ('[grid]\nzones = ["home"]', "line 2: Setting `grid.keys`: must be set beside `zones`"),
        ('[grid]\nkeys = ["5f"]', "line 3: Setting `grid.keys`: '5f' is no public key of 64 hex digits"),
        ('[grid.openadr]\nclient_id = "a"', "line 2: Setting `grid.openadr.url`: must be set"),
        ('[grid.openadr]\nurl = "http://vtn.example"', "Setting `grid.openadr.client_id`: must be set"),
        ('[grid.openadr]\nULR = "http://vtn.example"', "did you mean `grid.openadr.url`?"),
        (
            "simple_pct = [0, 50, 100]",
            "line 7: Setting `grid.openadr.simple_pct`: must be three whole numbers from 100 to 0",
        ),
        ('stop_on = ["ALERT_RAIN"]', "'ALERT_RAIN' is none of ALERT_GRID_EMERGENCY"),
        ('reports = ["LOCATION"]', "'LOCATION' is none of USAGE, OPERATING_STATE, LOAD_SHED_DELTA_AVAILABLE"),
        ("poll_s = 1", "line 7: Setting `grid.openadr.poll_s`: must be a number from 5 to 3600"),
        ("price_ucr = {euro = 1}", "there is no such currency"),
        ('url = "http://vtn.example/"', "must begin with https:// and a host"),
        ('url = "https://me:pass@vtn.example/"', "must begin with https:// and a host"),
    ],
)
def test_a_mistake_is_said_with_its_line(tmp_path: Path, written: str, said: str) -> None:
    table = ["[grid.openadr]", 'url = "https://vtn.example/"', 'client_id = "a"', 'secret = "s"', 'ven_name = "n"']
    if not written.startswith("["):
        table = [line for line in table if not line.startswith(written.partition(" =")[0] + " ")] + [written]
    else:
        table = [written]
    path = tmp_path / "node.toml"
    path.write_text("\n".join(['state = "state"', *table]))
    with pytest.raises(SettingError) as found:
        config.load(path)
    assert said in found.value.message


def test_what_the_owner_may_say_of_the_grid_is_read(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        'state = "state"\n[grid]\nzones = ["home", "street"]\n'
        f'keys = ["{"5f" * 32}"]\n[grid.openadr]\nurl = "https://vtn.example/3.1.0"\nclient_id = "a"\nsecret = "vtn.secret"\n'
        'ven_name = "n"\nca = "ca.pem"\nprice_ucr = {EUR = 1000000}\nsimple_pct = [80, 20, 0]\nreports = ["USAGE"]\n'
    )
    grid = config.load(path).grid
    assert (grid.zones, grid.keys) == (("home", "street"), (bytes([0x5F]) * 32,))
    assert grid.openadr is not None
    assert grid.openadr.secret == tmp_path / "vtn.secret" and grid.openadr.ca == tmp_path / "ca.pem"
    assert grid.openadr.heeded.price_ucr == {"EUR": 1_000_000} and grid.openadr.heeded.simple_pct == (80, 20, 0)
