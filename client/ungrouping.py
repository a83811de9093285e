"""Errors of nurseries as single ones: callers of the SDK know no groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_error() -> Iterator[None]:
    """What nurseries inside raise leaves without their groups around it."""
    try:
        yield
    except ExceptionGroup as group:
        raise ungrouped(group) from group


def ungrouped(error: Exception) -> Exception:
    """The first error in a group of groups; the error itself if it is not one."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
