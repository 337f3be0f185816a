"""Compression that gives the same bytes for the same bytes: no time, no name."""

from __future__ import annotations

import gzip

from auditdb.errors import InvalidInput

SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def compress(data: bytes, how: str) -> bytes:
    """Return bytes compressed by "gzip" or "zstd", or as they are by "none"."""
    if how == "gzip":
        return gzip.compress(data, 3, mtime=0)
    if how == "zstd":
        return _zstd(data)
    return data


def check_compression(how: str) -> str:
    """Return how to compress, if it is known and can be done.

    Raises:
        InvalidInput: it is not.
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
