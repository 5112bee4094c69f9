"""`medssl classify compare`."""

from medssl.cli.classify_compare import compare

__all__ = ["compare"]
