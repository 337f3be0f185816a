"""Deterministic compression: no time and no name in the output."""

from __future__ import annotations

import gzip

from auditdb.errors import InvalidInput

SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def compress(data: bytes, how: str) -> bytes:
    """Compress bytes with "gzip" or "zstd"; "none" returns them unchanged."""
    if how == "gzip":
        return gzip.compress(data, 3, mtime=0)
    if how == "zstd":
        return _zstd(data)
    return data


def check_compression(how: str) -> str:
    """Return the name of a compression if it is available.

    Raises:
        InvalidInput: it is unknown, or its package is missing.
    """
    if how not in SUFFIXES:
        raise InvalidInput(f"compression is {how!r}; it is one of gzip, zstd, none")
    compress(b"", how)
    return how


def _zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise InvalidInput("zstd needs a package: pip install 'auditdb[export]'") from error
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)
