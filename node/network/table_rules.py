"""The rules of the network's table, the same for nodes and clients: it holds nodes' own profiles and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.published import check_published_untrusted, newest
from .seam import Validator


def profile_rules(clock: Callable[[], int]) -> Validator:
    """The rules, at the time that `clock` gives in milliseconds since 1970."""
    return Validator(
        validate=lambda key, value: check_published_untrusted(key, value, clock()),
        select=lambda key, values: newest(values, clock()),
    )
