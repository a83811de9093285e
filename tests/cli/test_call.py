"""A function of arrays, called over real nodes, a liar among them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fallow.client import Outputs, connect
from fallow.protocol.checks import Standing
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import peer_id, peer_key_untrusted

from .conftest import Shell
from .function import NAME, expected

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def newcomer(mesh: Shell, home: Path) -> Shell:
    """A client of the same machine that has dealt with nobody yet: it has not caught the liar."""
    shutil.copytree(mesh.home, home, ignore=shutil.ignore_patterns("wallet*", "client"))
    return Shell(home, mesh.bootstrap, mesh.nodes)


async def test_a_liar_among_three_is_outvoted_and_anybody_can_recompute_that(mesh: Shell, tmp_path: Path) -> None:
    shell = newcomer(mesh, tmp_path / "home")
    liar, *honest = [node["peer_id"] for node in reversed(mesh.nodes)]
    inputs = [{"x": X, "count": 3}, {"x": (X / 2).tolist(), "count": np.int32(-2)}]
    with trio.fail_after(60):
        async with connect(mesh.bootstrap.split(","), home=shell.home) as client:
            while True:  # two who agree wait little for a third: where it comes too late, it is asked once more
                outputs = await client.call(NAME, inputs, assurance="quorum:2/3", executors=[liar, *honest[:2]])
                assert outputs.verdict is not None
                if all(found.standing != Standing.SILENT for found in outputs.verdict.findings):
                    break
    for row, (x, count) in zip(outputs, [(X, 3), (X / 2, -2)], strict=True):
        total = np.asarray(row["total"])
        assert (total.dtype, total.shape) == (np.float32, (2, 4))
        np.testing.assert_allclose(total, expected(x, count), rtol=1e-6)
        assert row["mean"][()] == pytest.approx(float(total.mean()), rel=1e-6)
    check_the_liar_is_named(outputs, liar)
    outputs.save(tmp_path / "kept", openings=True)
    (verdict,) = (one for one in mesh.json("verify", tmp_path / "kept")["files"] if one["record"] == "verdict")
    assert verdict["borne_out"] == "recomputed from the records beside it: the same"


def check_the_liar_is_named(outputs: Outputs, liar: str) -> None:
    assert outputs.verdict is not None
    assert outputs.verdict.outcome == "accepted"
    (fault,) = (found for found in outputs.verdict.findings if not found.agrees)
    assert (fault.node, fault.standing, fault.due_ucr) == (peer_key_untrusted(liar), "refuted", 0)
    assert outputs.usage.prompt_tokens == len(outputs) == 2
    assert {paid.paid_ucr > 0 for paid in outputs.receipts if paid.executor != liar} == {True}


async def test_what_is_no_input_is_refused_before_anybody_is_asked(mesh: Shell, tmp_path: Path) -> None:
    shell = newcomer(mesh, tmp_path / "home")
    wrong: list[dict[str, Any]] = [
        {"x": X.astype(np.float64), "count": 3},
        {"x": X.T, "count": 3},
        {"x": X},
        {"x": X, "count": 3, "other": 1},
    ]
    with trio.fail_after(60):
        async with connect(mesh.bootstrap.split(","), home=shell.home) as client:
            for one in wrong:
                with pytest.raises(Refused) as refused:
                    await client.call(NAME, [one])
                assert refused.value.code is Code.BAD_CONFIG
            for call in (client.embed(NAME, ["text"]), client.generate(NAME, "text"), client.call("tiny-chat", [{}])):
                with pytest.raises(Refused) as refused:
                    await call
                assert refused.value.code is Code.UNKNOWN_ENTRY
            assert client.owed_by_owner() == {}


async def test_a_state_goes_from_one_call_into_the_next(mesh: Shell) -> None:
    state: Any = bytes(32)
    with trio.fail_after(60):
        async with connect(mesh.bootstrap.split(","), home=mesh.home) as client:
            for count in (1, 2, 3):
                (row,) = await client.call(NAME, [{"x": state, "count": count}])
                state = row["total"]
    so_far = np.zeros((2, 4), np.float32)
    for count in (1, 2, 3):
        so_far = expected(so_far, count)
    np.testing.assert_allclose(np.asarray(state), so_far, rtol=1e-5)


def test_the_command_reads_files_and_keeps_what_comes(mesh: Shell, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    words = ("call", NAME, "--input", f"x={tmp_path / 'x.npy'}", "--input", "count=3")
    shown = mesh.json(*words, "--out", tmp_path / "out", "--receipts", tmp_path / "kept", "--openings")
    assert shown["verdict"]["outcome"] == "accepted"
    assert shown["usage"]["prompt_tokens"] == 1
    np.testing.assert_allclose(shown["outputs"][0]["total"], expected(X, 3), rtol=1e-6)
    assert np.load(tmp_path / "out" / "total.npy").tolist() == shown["outputs"][0]["total"]
    (verdict,) = (one for one in mesh.json("verify", tmp_path / "kept")["files"] if one["record"] == "verdict")
    assert verdict["borne_out"] == "recomputed from the records beside it: the same"
    state = tmp_path / "out" / "total.npy"
    ran = mesh("call", NAME, "--input", f"x={state}", "--input", "x=zeros", "--input", "count=1")
    assert ran.returncode == 0, ran.stderr
    first, *_, last = ran.stdout.splitlines()
    assert first.startswith("0: total [2, 4]: +2.5000, ")
    assert "; the largest is +" in first
    assert last == "1: mean +1.0000"
    assert "verdict: accepted" in ran.stderr


def test_more_calls_than_one_order_carries_are_done_in_parts_and_not_again(mesh: Shell, tmp_path: Path) -> None:
    counts = [word for count in range(70) for word in ("--input", f"count={count}")]
    words = ("call", NAME, "--input", "x=zeros", *counts, "--assurance", "none", "--checkpoint", tmp_path / "batch")
    first = mesh.json(*words)
    assert [row["mean"] for row in first["outputs"]] == list(range(70))
    assert sum(receipt["amount_ucr"] for receipt in first["receipts"]) > 0
    again = mesh.json(*words, "--out", tmp_path / "out.npz")
    assert (again["outputs"], again["receipts"]) == (first["outputs"], [])
    assert np.load(tmp_path / "out.npz")["mean"].tolist() == list(range(70))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("x=zeros",), "takes x float32[2, 4], count int32; given: x."),
        (("x=zeros", "count=0", "y=1"), "given: x, count, y."),
        (("x=1", "count=0"), "The input x takes float32[2, 4], not one number."),
        (("x=zeros", "count=0.5"), "The input count takes int32, not a float in its place."),
        (("x",), "--input takes NAME=FILE, not 'x'."),
        (("x=zeros", "x=zeros", "count=1", "count=2", "count=3"), "as often as the others: x 2, count 3."),
        (("x=none.npy", "count=0"), "--input cannot be used: none.npy: No such file or directory."),
    ],
)
def test_a_call_that_is_wrong_is_refused_in_a_sentence(words: tuple[str, ...], sentence: str, mesh: Shell) -> None:
    ran = mesh("call", NAME, *(each for word in words for each in ("--input", word)))
    assert (ran.returncode, ran.stdout) == (1, "")
    message, _ = ran.stderr.splitlines()
    assert sentence in message


async def test_who_wrote_a_text_and_who_checked_it_may_have_it_still(mesh: Shell) -> None:
    with trio.fail_after(60):
        async with connect(mesh.bootstrap.split(","), home=mesh.home) as client:
            answer = await client.generate("tiny-chat", "hello there", max_tokens=40)
            opened = await client._open("tiny-chat")
            prompt = opened.tokenizer.prompt("hello there")
            kept = client._team.experience.kept.find(opened.hash, (*prompt, *answer.tokens))
    have = {peer_id(node): tokens for node, tokens in kept.items()}
    paid = [receipt for receipt in answer.receipts if receipt.paid_ucr]
    assert have.keys() >= {receipt.executor for receipt in paid if receipt.entry == "score"}
    # Who left in the middle has it no more; who wrote its end has all but what fills no block.
    last = [receipt.executor for receipt in paid if receipt.entry == "generate"][-1]
    assert have[last] > len(prompt) + len(answer.tokens) - 16
