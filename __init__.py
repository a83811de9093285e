"""Fallow: idle machines run inference for others, with nobody in the middle and every claim checkable offline."""

__version__ = "0.1.0"
