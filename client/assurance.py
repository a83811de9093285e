"""Which of the protocol's policies this client carries out."""

from __future__ import annotations

from ..protocol.errors import Code, Refused
from ..protocol.policy import NONE, QUORUM, Policy


def read_assurance(text: str) -> Policy:
    """The policy that `text` asks for. Raises `Refused(unsatisfiable_assurance)` for one that this client cannot keep."""
    policy = Policy.parse(text)
    if policy.kind not in (NONE, QUORUM) or policy.anchored:
        message = (
            f"{text!r} can be judged by `fallow verify`, but this client cannot carry it out; say none or quorum:2/3."
        )
        raise Refused(Code.UNSATISFIABLE_ASSURANCE, message)
    return policy
