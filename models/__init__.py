"""How a model becomes a bundle. Publishers need this; nodes never do."""

from .builder import build

__all__ = ["build"]
