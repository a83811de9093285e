"""What `fallow generate` says of an answer besides its text."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from fallow.cli import output
from fallow.cli.ask import _answer_json
from fallow.cli.proof import show_proof
from fallow.client import Answer, Notice, Proof, Usage
from fallow.protocol.errors import REGISTRY, Code

NOTICE = Notice(Code.UNSIGNED, "No receipt covers 2 of 5 tokens [of a node]: it left.", "12D3KooWnode", 2, 70)
ANSWER = Answer("blue", (1, 2), "stop", None, (), Usage(3, 2), (), Proof(()), notices=(NOTICE,))


def shown(answer: Answer) -> str:
    err = io.StringIO()
    with redirect_stderr(err):
        show_proof(answer.verdict, answer.receipts, answer.notices)
    return err.getvalue()


def test_what_no_receipt_covers_is_said_with_its_code_and_what_to_do() -> None:
    said = shown(ANSWER).splitlines()
    assert f"notice: {NOTICE.message} [unsigned]" in said
    assert said[-1].strip() == REGISTRY[Code.UNSIGNED].advice
    assert "notice" not in shown(Answer("blue", (1, 2), "stop", None, (), Usage(3, 2), (), Proof(())))
    assert output.stderr.is_terminal is False  # else the lines above would be coloured


def test_a_program_is_told_the_same() -> None:
    told = _answer_json(ANSWER, "none")
    assert isinstance(told, dict)
    assert told["unpaid_ucr"] == 70
    assert told["notices"] == [
        {"code": "unsigned", "message": NOTICE.message, "node": "12D3KooWnode", "tokens": 2, "unpaid_ucr": 70}
    ]
