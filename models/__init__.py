"""How a model becomes a bundle. Publishers need this; nodes never do."""

from .builder import build
from .function import bundle

__all__ = ["build", "bundle"]
