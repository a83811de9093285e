"""What a node writes down names no client's address, whatever happens and whatever an error's words are."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from threading import Thread

import pytest
import trio

from fallow.node.log import WAITING_MAX, EventLog
from fallow.node.network.seam import Network
from fallow.protocol.errors import NetworkError
from fallow.protocol.streams import JOB_PROTOCOL
from fallow.protocol.work import Work

from .conftest import Daemon, Home
from .raw_client import Ask, Conversation, Payer, profile_of

ADDRESS = re.compile(r"/ip[46]/|/dns|\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1")
PROMPT = Work(((1, 40, 41, 42, 43),))


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("cannot dial /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWT1Gc: refused", "cannot dial (address): refused"),
        ("tried [/ip6/2001:db8::1/tcp/1, /dns4/a.example/tcp/2]", "tried [(address), (address)]"),
        ("192.0.2.7:4001 has gone", "(address):4001 has gone"),
        ("from 192.0.2.7.", "from (address)"),
        ("from 2001:db8::7 and ::1", "from (address) and (address)"),
        ("from [2001:db8::7]:4001", "from [(address)]:4001"),
        ("::ffff:192.0.2.7", "(address)"),
        ("version 1.2.3 at 12:34:56, 3.5 s, a.b: c:", "version 1.2.3 at 12:34:56, 3.5 s, a.b: c:"),
        ("bafkr4iabc: 0.5 of 10.25 ucr", "bafkr4iabc: 0.5 of 10.25 ucr"),
    ],
)
def test_addresses_are_left_out_of_words(tmp_path: Path, words: str, written: str) -> None:
    heard: list[object] = []
    log = EventLog(tmp_path, lambda event, fields: heard.append(fields["why"]))
    log.write("stream_broken", why=words, more=(words, "nothing"), port=4001)
    said = json.loads(log.path.read_text())
    assert (said["why"], said["more"], said["port"]) == (written, [written, "nothing"], 4001)
    assert heard == [written]


def test_where_the_owners_own_sensor_is_may_be_said(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("withheld", why=("http://127.0.0.1:8000/ does not answer",))
    assert "127.0.0.1:8000" in log.path.read_text()


async def test_a_node_that_is_ordered_from_and_lied_to_writes_no_address(
    node: Daemon, network: Network, home: Home
) -> None:
    payer = Payer(await profile_of(network, network.peers()[0]))
    with trio.fail_after(60):
        for tokens in (8, 4096):  # the second is more than the model takes
            talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=tokens))
            await talk.run()
        stream = await network.open(payer.profile.node, JOB_PROTOCOL)
        await stream.send(b"no order")
        with pytest.raises(NetworkError):
            await stream.receive()
        left = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
        await left.next()
        await left.stream.reset()
        await trio.to_thread.run_sync(node.events, "job_accepted", "job_ended", "job_refused", "stream_broken")
    for path in node.state.glob("*.log*"):
        assert not ADDRESS.search(path.read_text(errors="replace")), path


def test_events_are_written_in_their_order_and_all_of_them_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.log.FLUSH_S", 60.0)
    log = EventLog(tmp_path)
    with log.in_background():
        for number in range(500):
            log.write("counted", number=number)
    log.write("after", number=500)
    assert [json.loads(line)["number"] for line in log.path.read_text().splitlines()] == list(range(501))


def test_a_disk_that_hangs_holds_nobody_up_and_costs_no_event_without_saying_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.log.FLUSH_S", 60.0)
    heard: list[object] = []
    log = EventLog(tmp_path, lambda event, fields: heard.append(fields["number"]))
    os.mkfifo(log.path)  # whoever opens it to write hangs until somebody reads
    taken: list[dict[str, int]] = []

    def read() -> None:
        with os.fdopen(os.open(log.path, os.O_RDWR)) as stream:  # this end stays open, whoever comes and goes
            while not taken or taken[-1]["number"] != -1:
                taken.append({"number": 0} | json.loads(stream.readline()))

    reader = Thread(target=read, daemon=True)
    first, more = 2 * WAITING_MAX + 10, 100  # what the thread has in hand, and what waits
    with log.in_background():
        for number in range(first):
            log.write("counted", number=number)
        assert heard == list(range(first))
        reader.start()
        for number in range(first, first + more):  # whether there is room by then or not
            log.write("counted", number=number)
    log.write("end", number=-1)
    reader.join(60)
    numbers = [each["number"] for each in taken if each["event"] == "counted"]
    lost = [each["events"] for each in taken if each["event"] == "events_lost"]
    assert numbers == sorted(set(numbers))
    assert lost and len(numbers) + sum(lost) == first + more


def test_an_end_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.node.log.FLUSH_S", 0.1)
    log = EventLog(tmp_path)
    os.mkfifo(log.path)
    with log.in_background():
        log.write("lost")
    os.close(os.open(log.path, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go
