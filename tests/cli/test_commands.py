"""Help, usage, settings and errors of `fallow`, and the commands that need no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from fallow.cli import run
from fallow.cli.clock import judged
from fallow.cli.commands import COMMANDS, GROUPS, Command
from fallow.node.engine.sandbox import bubblewrap
from fallow.node.engine.trial import ATTEMPTS
from fallow.node.trust import TrustList

from .conftest import Shell

PEER = "12D3KooWGrvBboUvJsucNk6QEe9MGeKfay3tZrpvQa19RsYJGGAe"
CID = "bafkr4iesrulf722otsb4t3bajjciaama7yegb3cgeafwgdilg7thsiq63y"


@pytest.mark.parametrize("words", ["", *(command.words for command in COMMANDS), *GROUPS])
def test_every_command_has_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: fallow {words}".rstrip())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_every_commands_help_has_its_example(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words, example = command.words, command.example
    run([*words.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: {example}" in shown
    assert example.startswith(f"fallow {words}")


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from fallow.cli import run; run(['--help']); print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ)
    assert ran.returncode == 0
    assert not {"jax", "libp2p", "fallow.client", "starlette"} & set(ran.stdout.split())


@pytest.mark.parametrize("words", ["nope", "generate x", "generate x y --nope", "generate x y --max-tokens many"])
def test_a_wrong_call_exits_with_2_and_says_where_to_look(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "--help`" in err


def failing(ran: "subprocess.CompletedProcess[str]", code: str) -> str:
    """The sentence of a command that fails as it should: one line with its code, one of advice, no traceback."""
    assert (ran.returncode, ran.stdout) == (1, "")
    message, advice = ran.stderr.splitlines()
    assert message.startswith("error: ")
    assert message.endswith(f"[{code}]")
    assert advice.strip()
    return message


@pytest.mark.parametrize("words", ["generate b p", "embed b t", "nodes", "gateway --listen 127.0.0.1:0"])
def test_without_a_bootstrap_address_it_is_said_how_to_set_one(words: str, shell: Shell) -> None:
    message = failing(shell(*words.split()), "bad_config")
    assert "FALLOW_BOOTSTRAP" in message
    assert "/p2p/12D3KooW" in message


def test_receipts_that_cannot_be_kept_are_said_before_anything_is_paid(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = failing(shell("generate", "b", "p", "--receipts", tmp_path / "file"), "bad_config")
    assert "--receipts" in message


@pytest.mark.parametrize("address", ["nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/nonsense"])
def test_what_names_no_node_is_no_bootstrap_address(address: str, shell: Shell) -> None:
    assert repr(address) in failing(shell("nodes", "--bootstrap", address), "bad_config")


@pytest.mark.parametrize("words", ["generate b", "embed b", "testnet up --dir", "verify", "gateway --listen"])
def test_what_is_no_text_is_said(words: str, shell: Shell) -> None:
    assert "not UTF-8" in failing(shell(*words.split(), "\udcff"), "bad_config")


def test_an_empty_text_is_said(shell: Shell) -> None:
    assert "TEXT is empty" in failing(shell("embed", "b", "full", ""), "bad_config")


def test_a_place_where_nothing_can_be_kept_is_said(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for directory in (file, file / "below", tmp_path / ("long" * 100)):
        assert f"--dir cannot be used: {directory}: " in failing(
            shell("testnet", "up", "--dir", directory), "bad_config"
        )


def test_a_home_that_is_none_is_said(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "file", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}")
    shell.home.touch()
    for words in (
        ("generate", "b", "p"),
        ("nodes",),
        ("bundle", "build", "tiny-chat"),
        ("trust", "add", CID, "--name", "m", "--publisher", "aa" * 32),
    ):
        failing(shell(*words), "bad_config")


def test_an_unreachable_bootstrap_is_said(shell: Shell) -> None:
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    assert address in failing(shell("nodes", "--bootstrap", address), "bootstrap_unreachable")


def test_the_gateway_says_what_is_wrong_with_its_settings(shell: Shell) -> None:
    failing(shell("gateway", "--listen", "nonsense"), "bad_config")
    failing(shell("gateway", "--listen", "192.0.2.1:0"), "bad_config")
    failing(shell("gateway", "--listen", f"127.0.0.1:{'9' * 5000}"), "bad_config")
    failing(shell("gateway", "--listen", f"{'a' * 100}:80"), "bad_config")
    failing(shell("gateway", "--assurance", "quorum:1/9"), "unsatisfiable_assurance")
    failing(shell("gateway", "--assurance", f"quorum:{'9' * 5000}/1"), "unsatisfiable_assurance")


def test_what_is_not_there_is_said(shell: Shell, tmp_path: Path) -> None:
    failing(shell("node", "status", "--state", tmp_path), "not_running")
    failing(shell("earnings", "--state", tmp_path / "gone"), "bad_config")
    failing(shell("testnet", "status", "--dir", tmp_path), "not_running")
    failing(shell("testnet", "down", "--dir", tmp_path), "not_running")
    failing(shell("bundle", "inspect", "nope"), "bundle_not_built")
    failing(shell("bundle", "build", "nope"), "unknown_name")


def test_a_folder_s_model_is_built_and_listed(shell: Shell, tmp_path: Path) -> None:
    """Random weights, saved by transformers; of the tokenizer only that there is one matters here."""
    folder = shutil.copytree(Path(__file__).parents[1] / "fixtures" / "references" / "hf_bert", tmp_path / "Some BERT")
    assert "tokenizer.json" in failing(shell("bundle", "build", folder), "unsupported_model")
    (folder / "tokenizer.json").write_text(Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?")).to_str())
    assert "--licence" in failing(shell("bundle", "build", folder), "unsupported_model")
    failing(shell("bundle", "build", folder, folder, "--name", "one"), "bad_config")
    failing(shell("bundle", "build", "tiny-chat", "--devices", "2"), "bad_config")
    assert "from 1 to 64" in failing(shell("bundle", "build", folder, "--devices", "65"), "bad_config")
    divided = failing(shell("bundle", "build", folder, "--licence", "MIT", "--devices", "2"), "unsupported_model")
    assert "only llama over several devices" in divided
    built = shell.json("bundle", "build", folder, "--licence", "MIT", "--context", "32")["bundles"]
    (listed,) = shell.json("bundle", "list")["bundles"]
    assert built == {"some-bert": listed["cid"]}
    assert listed["trusted"] is True


def test_a_node_that_cannot_run_says_why(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('state = "state"\nbundles = ["nope"]\nport = 7\n')
    for config, about in (("gone.toml", "gone.toml"), ("node.toml", "`port`")):
        ran = shell("node", "run", "--config", tmp_path / config)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert about in ran.stderr
        assert "[bad_config]" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_node_that_earned_nothing_says_so(shell: Shell, tmp_path: Path) -> None:
    totals = shell.json("earnings", "--state", tmp_path)["totals"]
    assert totals == {"receipts": 0, "owed_ucr": 0, "vouchered_ucr": 0, "held_ucr": 0, "forfeited_ucr": 0}


def test_trust_is_added_and_replaced_by_name(shell: Shell) -> None:
    for publisher in ("aa" * 32, "BB" * 32):
        shell.json("trust", "add", CID, "--name", 'my "model"', "--publisher", publisher)
    entry = TrustList.load(shell.home).resolve('my "model"')
    assert (entry.cid, entry.publisher) == (CID, b"\xbb" * 32)
    assert {"name": 'my "model"', "cid": CID, "publisher": "bb" * 32} in shell.json("trust", "list")["bundles"]


def test_no_nonsense_is_trusted(shell: Shell) -> None:
    key = "aa" * 32
    assert "CID" in failing(shell("trust", "add", "nonsense", "--name", "m", "--publisher", key), "bad_config")
    failing(shell("trust", "add", CID, "--name", "m", "--publisher", "aa"), "bad_config")
    failing(shell("trust", "add", CID, "--name", "a\nb", "--publisher", key), "bad_config")
    assert not shell.home.exists()


def test_a_damaged_trust_list_is_said_and_kept(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "trust.toml").write_text("[[bundle")
    failing(shell("trust", "add", CID, "--name", "m", "--publisher", "aa" * 32), "bad_config")
    failing(shell("trust", "list"), "bad_config")
    assert (shell.home / "trust.toml").read_text() == "[[bundle"


def test_a_reader_that_has_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fallow.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_json_is_one_object(shell: Shell) -> None:
    assert json.loads(shell("bundle", "list", "--json").stdout) == {"bundles": []}


def test_an_owner_entitles_an_issuer_and_its_key_stays_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {}
    for name in ("owner", "server"):
        assert run(["owner", "show", str(tmp_path / f"{name}.key"), "--json"]) == 0
        keys[name] = json.loads(capsys.readouterr().out)["key"]
    out = str(tmp_path / "issuer.cose")
    assert run(["owner", "issue", keys["server"], "--key", str(tmp_path / "owner.key"), "--out", out]) == 0
    assert "for 365 days" in capsys.readouterr().out
    assert run(["verify", "--json", out]) == 0
    (record,) = json.loads(capsys.readouterr().out)["files"]
    assert (record["record"], record["signer"]["key"], record["fields"]["issuer"]) == (
        "issuer",
        keys["owner"],
        keys["server"],
    )
    assert run(["owner", "issue", "abc", "--key", str(tmp_path / "owner.key"), "--out", out]) == 1
    assert "no public key" in capsys.readouterr().err
    assert run(["owner", "issue", keys["server"], "--key", str(tmp_path / "gone.key"), "--out", out]) == 1
    assert "--key cannot be used" in capsys.readouterr().err


def test_doctor_tries_to_break_out_and_says_what_held(shell: Shell) -> None:
    ran = shell("doctor", "--sandbox")
    assert "read /etc/passwd" in ran.stdout
    assert "NOT denied" not in ran.stdout
    assert ran.returncode == (0 if bubblewrap() else 1)
    report = json.loads(shell("doctor", "--json").stdout)
    assert report["strangers_bundles"] == bool(bubblewrap())
    assert report["accelerators"]
    assert set(report["sandbox"]["attempts"]) == set(ATTEMPTS)
    assert report["sandbox"]["holes"] == []


def test_doctor_says_how_the_mesh_is_joined_if_it_is_not(shell: Shell) -> None:
    checks = json.loads(shell("doctor", "--json").stdout)["checks"]
    assert (checks["mesh"]["good"], checks["node"]["good"]) == (False, None)
    assert "FALLOW_BOOTSTRAP" in checks["mesh"]["advice"]
    assert "no peer's time" in checks["clock"]["found"]
    assert checks["disk"]["good"] is True
    gone = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    assert gone in json.loads(shell("doctor", "--json", "--bootstrap", gone).stdout)["checks"]["mesh"]["found"]


@pytest.mark.parametrize(
    ("kept", "ages_s", "good", "words"),
    [
        (True, [], True, "no peer's time"),
        (None, [], None, "no peer's time"),
        (True, [10, 50, 40], True, "at most 40 s ahead and 620 s behind"),
        (False, [10, 50, 40], None, "at most 40 s ahead"),
        (True, [-3, 50, -1], True, "at most 0 s ahead"),
        (True, [-130, 50, -140], False, "at least 130 s behind"),
        (True, [790, 50, 800], False, "at least 130 s ahead"),
        (True, [790, 50, 40], True, "at most 50 s ahead"),  # one that lies moves nothing
    ],
)
def test_a_clock_is_judged_by_the_kernel_and_by_what_peers_signed(
    kept: bool | None, ages_s: list[int], good: bool | None, words: str
) -> None:
    found = judged(kept, [1000 * age for age in ages_s])
    assert found[0] is good
    assert words in found[1]
    assert bool(found[2]) is (good is not True)


def test_doctor_says_what_is_missing_and_how_to_get_it(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = shell("doctor", "--sandbox")
    assert ran.returncode == 1
    assert "refuses strangers' bundles" in ran.stdout
    assert "apt-get install bubblewrap" in ran.stdout
