"""The client's and the owner's commands against real nodes."""

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fallow.cli.prices import EXAMPLES

from .conftest import COMMAND, Shell

ASK = ("generate", "tiny-chat", "hello there", "--max-tokens", "40")


def test_the_network_is_shown(mesh: Shell) -> None:
    found = mesh.json("nodes", "tiny-chat")["nodes"]
    assert {node["peer_id"] for node in found} <= {node["peer_id"] for node in mesh.nodes}
    assert all("tiny-chat" in node["bundles"] and node["state"] == "ready" for node in found)
    assert len({node["owner"] for node in found}) == len(found) >= 3


def test_nodes_are_shown_as_we_measured_them_and_how_they_are_reached(mesh: Shell) -> None:
    before = {node["peer_id"]: node for node in mesh.json("nodes", "tiny-chat")["nodes"]}
    for node in mesh.json("nodes", "tiny-chat")["nodes"]:
        assert node["rtt_ms"] > 0
        assert 0 <= node["age_ms"] < 60_000
        assert (node["reach"], node["way"]) == ("direct", "direct")
        assert node["answers"] > before[node["peer_id"]]["answers"]  # kept from one command to the next
        assert node["tries"] >= node["answers"]
        assert node["jobs_done"] >= 0 <= node["jobs_failed"]
        assert node["interactive"] in (True, False)


def test_watching_says_what_changes_line_by_line_until_ctrl_c(mesh: Shell) -> None:
    command = [*COMMAND, "nodes", "tiny-chat", "--watch"]
    state, name = mesh.nodes[2]["folder"], mesh.nodes[2]["peer_id"][-8:]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mesh.environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = iter(process.stdout.readline, "")
        came = next(line for line in lines if f"+ {name}" in line)
        assert "ready" in came and "direct" in came and "tiny-chat" in came
        mesh.json("node", "drive", "--state", state)
        assert next(line for line in lines if f"~ {name}" in line and " not-eligible (" in line)
        mesh.json("node", "park", "--state", state)
        assert next(line for line in lines if f"~ {name}" in line and " ready, " in line)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


def test_watching_on_a_terminal_keeps_a_table_up_and_gives_the_terminal_back(mesh: Shell) -> None:
    master, slave = pty.openpty()
    command = [*COMMAND, "nodes", "tiny-chat", "--watch"]
    environment = {**mesh.environment, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, env=environment) as process:
        os.close(slave)
        assert process.stderr is not None
        shown = b""
        while shown.count(b"its own rtt ms") < 2:
            shown += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""
        with contextlib.suppress(OSError):  # a terminal without a program is at its end
            while more := os.read(master, 65536):
                shown += more
    os.close(master)
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is there again
    assert mesh.nodes[0]["peer_id"][-8:].encode() in shown


def test_watching_for_programs_gives_an_object_for_each_look(mesh: Shell) -> None:
    with mesh.running("nodes", "tiny-chat", "--watch", "--json") as (process, first):
        assert process.stdout is not None
        again = json.loads(process.stdout.readline())
        assert {node["peer_id"] for node in first["nodes"]} <= {node["peer_id"] for node in again["nodes"]}
        process.terminate()
        assert process.wait(30) == 0


def test_nodes_are_shown_with_the_profiles_that_they_signed(mesh: Shell) -> None:
    for node in mesh.json("nodes", "tiny-chat")["nodes"]:
        capability, connectivity = node["capability"], node["connectivity"]
        assert capability["node"] == connectivity["node"] == node["peer_id"]
        assert capability["roles"] == ["executor", "checker"]
        served = next(one for one in capability["served"] if "generate" in one["entries"])
        assert served["bundle"].startswith("bafkr4i")
        assert "float32" in served["numerics_class"]
        assert served["output_tokens_per_s_milli"] > 0
        assert served["bundle"] in {price["bundle"] for price in capability["prices"] if price["output_token_ucr"]}
        assert capability["expires_ms"] > capability["issued_ms"]
        assert {"rtt_p50_us", "rtt_p95_us"} <= set(connectivity)
        assert node["distrusted"] in (True, False)
    shown = mesh("nodes", "tiny-chat").stdout
    assert "tokens/s, 4 ucr each" in shown
    assert "checker" in shown


def test_text_is_generated_checked_and_paid(mesh: Shell, tmp_path: Path) -> None:
    answer = mesh.json(*ASK, "--receipts", tmp_path)
    assert answer["verdict"]["outcome"] == "accepted"
    assert answer["usage"]["completion_tokens"] == 40
    agrees = {finding["node"]: finding["agrees"] for finding in answer["verdict"]["findings"]}
    silent = {finding["node"] for finding in answer["verdict"]["findings"] if finding["standing"] == "silent"}
    for paid in answer["receipts"]:
        if paid["executor"] not in silent:  # for whom nobody waited: it is paid for what it had done
            assert paid["paid_ucr"] == (paid["amount_ucr"] if agrees[paid["executor"]] else 0)
    used = (paid for paid in answer["receipts"] if paid["role"] == "executor" and agrees[paid["executor"]])
    assert sum(paid["tokens"] for paid in used) >= 40
    piped = mesh(*ASK)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == answer["text"] + "\n"
    assert "verdict: accepted by adaptive:20000" in piped.stderr


def test_every_record_that_was_kept_verifies_and_a_copy_with_a_bit_flipped_does_not(
    mesh: Shell, tmp_path: Path
) -> None:
    ran = mesh(*ASK, "--receipts", tmp_path)
    assert ran.returncode == 0, ran.stderr
    verified = mesh.json("verify", tmp_path)
    kinds = {one["record"] for one in verified["files"]}
    assert {"mandate", "job-order", "receipt", "attestation", "verdict"} <= kinds
    victim = next(tmp_path.glob("*-receipt-*.cose"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    ran = mesh("verify", tmp_path)
    assert ran.returncode == 1
    assert [line for line in ran.stdout.splitlines() if "NOT VALID" in line] == [f"NOT VALID  {victim}"]


@pytest.mark.parametrize("ask", [ASK, ("embed", "tiny-embed", "parked")])
def test_whoever_has_the_records_comes_to_the_same_verdict(ask: tuple[str, ...], mesh: Shell, tmp_path: Path) -> None:
    ran = mesh(*ask, "--receipts", tmp_path, "--openings")
    assert ran.returncode == 0, ran.stderr
    (verdict,) = (one for one in mesh.json("verify", tmp_path)["files"] if one["record"] == "verdict")
    assert verdict["borne_out"] == "recomputed from the records beside it: the same"
    for attestation in (*tmp_path.glob("*-attestation-*"), *tmp_path.glob("*.opening")):
        attestation.unlink()
    (verdict,) = (one for one in mesh.json("verify", tmp_path)["files"] if one["record"] == "verdict")
    assert verdict["borne_out"].startswith("not recomputed")


def test_a_proof_in_one_file_is_run_again(mesh: Shell, tmp_path: Path) -> None:
    proof = tmp_path / "answer.proof"
    ran = mesh(*ASK, "--receipts", proof, "--openings")
    assert ran.returncode == 0, ran.stderr
    found = mesh.json("verify", "--recheck", proof)
    assert found["valid"]
    assert {one["entry"] for one in found["rerun"]} == {"generate", "score"}
    assert not any(one["objection"] for one in found["rerun"] if one["entry"] == "generate")
    (verdict,) = (one for one in found["files"] if one["record"] == "verdict")
    assert verdict["borne_out"] == "recomputed from the records beside it: the same"
    proof.write_bytes(proof.read_bytes()[:-1])
    assert not json.loads(mesh("verify", proof, "--json").stdout)["valid"]
    ran = mesh(*ASK, "--receipts", proof)
    assert ran.returncode == 0
    assert "Nothing can be run again" in mesh("verify", "--recheck", proof).stderr
    history = mesh.json("audits")
    assert {(one["role"], one["newcomer"]) for one in history["standings"]} >= {("executor", True)}


def test_the_docs_lines_about_proofs_can_be_typed_one_after_the_other(mesh: Shell, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
    block = next(block for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S) if "--recheck" in block)
    typed = [line for line in block.splitlines() if line.startswith(("fallow generate", "fallow verify"))]
    assert [line.split()[1] for line in typed] == ["generate", "verify", "verify"]
    for line in typed:
        words = shlex.split(line.replace("smollm2-135m-instruct", "tiny-chat"), comments=True)[1:]
        ran = subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, timeout=120, env=mesh.environment, cwd=tmp_path
        )
        assert ran.returncode == 0, ran.stderr
    assert "borne out  generate by" in ran.stdout


def test_a_proof_that_is_not_there_is_what_a_recheck_says(shell: Shell, tmp_path: Path) -> None:
    ran = shell("verify", "--recheck", tmp_path / "answer.proof")
    assert ran.returncode == 1
    assert ran.stdout.startswith("NOT VALID  ") and "No such file" in ran.stdout
    assert "Nothing can be run again" not in ran.stderr


def test_prices_are_those_of_the_nodes_lists(mesh: Shell) -> None:
    shown = mesh.json("prices", "tiny-chat")
    assert shown["bundle"] == "tiny-chat"
    nodes = {node["peer_id"]: node["capability"]["prices"] for node in mesh.json("nodes", "tiny-chat")["nodes"]}
    assert {offer["node"] for offer in shown["offers"]} <= {node["peer_id"] for node in mesh.nodes}
    found = {(offer["node"], offer["entry"]) for offer in shown["offers"]}
    both = nodes.keys() & {node for node, _ in found}  # a busy node may be late for one search, and not for the other
    assert len(both) >= 2
    assert found >= {(node, entry) for node in both for entry in ("generate", "score")}
    for entry, (calls, given, planned) in EXAMPLES.items():
        offers = [offer for offer in shown["offers"] if offer["entry"] == entry]
        for offer in offers:
            dearest = max(offer["output_token_ucr"], offer["checked_token_ucr"])
            whole = calls * offer["call_ucr"] + given * offer["input_token_ucr"] + planned * dearest
            assert offer["example_ucr"] == whole
        asked = sorted(offer["example_ucr"] for offer in offers)
        if asked:
            going = shown["going"][entry]
            assert (going["nodes"], going["least_ucr"], going["most_ucr"]) == (len(asked), asked[0], asked[-1])
            assert going["median_ucr"] == asked[(len(asked) - 1) // 2]
    assert "generate: 40 tokens in and 200 out cost " in mesh("prices", "tiny-chat").stdout


@pytest.mark.parametrize("words", [ASK, ("embed", "tiny-embed", "parked")])
def test_nothing_is_asked_of_nodes_that_are_dearer_than_the_cap(words: tuple[str, ...], mesh: Shell) -> None:
    owed = mesh.json("balance")
    ran = mesh(*words, "--max-price", "1")
    assert (ran.returncode, ran.stdout) == (1, "")
    message, advice = ran.stderr.splitlines()
    assert "dearer than the cap of 1 ucr" in message and message.endswith("[price_too_high]")
    assert advice.strip()
    assert mesh.json("balance") == owed
    assert mesh(*words, "--max-price", "-1").returncode == 2


def test_two_executors_race_from_the_command_line(mesh: Shell) -> None:
    plain = mesh.json(*ASK, "--assurance", "none")
    raced = mesh.json(*ASK, "--assurance", "none+hedge:2")
    assert (raced["assurance"], raced["text"]) == ("none+hedge:2", plain["text"])
    for paid in raced["receipts"]:
        assert paid["paid_ucr"] == paid["amount_ucr"] > 0


def test_openings_without_a_folder_are_a_mistake(mesh: Shell) -> None:
    ran = mesh(*ASK, "--openings")
    assert ran.returncode == 1
    assert "--openings goes with --receipts" in ran.stderr


def test_texts_become_vectors(mesh: Shell) -> None:
    result = mesh.json("embed", "tiny-embed", "parked", "driving", "parked")
    first, other, again = result["vectors"]
    assert len(first) == 64
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-4)
    assert sum(a * b for a, b in zip(first, again, strict=True)) == pytest.approx(1, abs=1e-3)
    assert sum(a * b for a, b in zip(first, other, strict=True)) < 0.999
    assert result["verdict"]["outcome"] == "accepted"


def test_unchecked_is_said_to_be_so(mesh: Shell) -> None:
    answer = mesh.json(*ASK, "--assurance", "none")
    assert answer["verdict"] is None
    assert "not checked" in mesh(*ASK, "--assurance", "none").stderr


@pytest.mark.parametrize("ask", [ASK, ("embed", "tiny-embed", "parked")])
def test_what_is_not_accepted_shows_its_verdict_and_keeps_its_records(
    ask: tuple[str, ...], mesh: Shell, tmp_path: Path
) -> None:
    stranger = Shell(tmp_path / "home", mesh.bootstrap)  # who has not caught the liar yet, and so asks all four
    shutil.copytree(mesh.home, stranger.home, ignore=shutil.ignore_patterns("wallet*", "history*", "client"))
    ran = stranger(*ask, "--assurance", "quorum:4/4", "--receipts", tmp_path / "kept", "--json")
    assert ran.returncode == 1
    shown = json.loads(ran.stdout)
    assert (shown["error"]["code"], shown["verdict"]["outcome"]) == ("rejected", "inconclusive")
    assert len({finding["node"] for finding in shown["verdict"]["findings"]}) == 4
    assert shown["receipts"]
    assert ran.stderr.splitlines()[-2].endswith("[rejected]")
    kinds = {one["record"] for one in mesh.json("verify", tmp_path / "kept")["files"]}
    assert {"job-order", "receipt", "verdict"} <= kinds


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("generate", "nope", "hi"), "unknown_name"),
        (("generate", "tiny-chat", "x" * 4000), "input_too_long"),
        (("generate", "tiny-chat", "hi", "--assurance", "most"), "unsatisfiable_assurance"),
        (("generate", "tiny-chat", "hi", "--assurance", "quorum:9/16"), "unsatisfiable_assurance"),
        (("embed", "tiny-embed", "x" * 4000), "input_too_long"),
    ],
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], code: str, mesh: Shell) -> None:
    ran = mesh(*words)
    message, advice = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout) == (1, "")
    assert message.startswith("error: ")
    assert message.endswith(f"[{code}]")
    assert advice.strip()


def test_earnings_add_up_and_name_their_vouchers(mesh: Shell) -> None:
    answer = mesh.json(*ASK)
    executor = next(paid["executor"] for paid in answer["receipts"] if paid["paid_ucr"])
    state = next(node["folder"] for node in mesh.nodes if node["peer_id"] == executor)
    earned = mesh.json("earnings", "--state", state)
    mine = {paid["id"]: paid["paid_ucr"] for paid in answer["receipts"] if paid["executor"] == executor}
    rows = {row["receipt"]: row for row in earned["receipts"]}
    assert {receipt: rows[receipt]["paid_ucr"] for receipt in mine} == mine
    assert all(rows[receipt]["voucher"] for receipt in mine)
    assert earned["totals"]["owed_ucr"] == sum(row["added_ucr"] for row in rows.values())
    assert earned["totals"]["vouchered_ucr"] == sum(row["paid_ucr"] for row in rows.values())


def test_the_owner_takes_the_machine_and_lends_it_again(mesh: Shell) -> None:
    state = mesh.nodes[2]["folder"]
    assert mesh.json("node", "status", "--state", state)["state"] == "ready"
    driving = mesh.json("node", "drive", "--state", state)
    assert driving["state"] == "not-eligible"
    assert driving["reasons"]
    mesh.json("node", "park", "--state", state)
    for _ in range(60):  # each look is a process that starts, so this is a minute of the slowest machine
        if (now := mesh.json("node", "status", "--state", state)["state"]) == "ready":
            break
    assert now == "ready"


def test_doctor_says_whether_a_stranger_finds_the_node_and_gets_through(mesh: Shell) -> None:
    state = mesh.nodes[1]["folder"]
    checks = json.loads(mesh("doctor", "--node", state, "--json").stdout)["checks"]
    connection = ["link", "round trips", "rates"]
    assert list(checks) == ["node", "mesh", "reach", "found", "clock", *connection, "sandbox", "accelerator", "disk"]
    assert " peers" in checks["round trips"]["found"]
    for name, words in (
        ("node", "runs, and is ready"),
        ("mesh", "joined as a stranger"),
        ("reach", "directly"),
        ("found", "and reaches it directly"),
        ("disk", "of the disk are free"),
    ):
        assert checks[name]["good"] is True, checks[name]
        assert words in checks[name]["found"]
    assert "peers signed last, it is at most" in checks["clock"]["found"]
    assert all(each["advice"] for each in checks.values() if each["good"] is False)


def test_doctor_says_what_is_so_where_no_node_runs(mesh: Shell, tmp_path: Path) -> None:
    shown = mesh("doctor", "--node", tmp_path).stdout
    assert "NO node" in shown and "No node is running" in shown
    assert "-> `fallow node run --config node.toml` starts it." in shown
    assert "joined as a stranger" in shown
    assert "no node runs whom a stranger could look for" in shown
    checks = json.loads(mesh("doctor", "--json").stdout)["checks"]
    assert checks["node"]["good"] is None and "--node STATE" in checks["node"]["advice"]
    assert checks["reach"]["good"] in (True, None)  # whether peers got through is this machine's affair
    assert checks["mesh"]["good"] is True


def test_the_test_network_shows_its_processes(mesh: Shell) -> None:
    directory = Path(mesh.nodes[0]["folder"]).parent
    shown = mesh.json("testnet", "status", "--dir", directory)["nodes"]
    assert [node["pid"] for node in shown] == [node["pid"] for node in mesh.nodes]
    assert [node["liar"] for node in shown] == [False, False, False, True]


def test_ctrl_c_ends_quietly(mesh: Shell) -> None:
    with mesh.running("gateway", "--listen", "127.0.0.1:0", "--json") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""
