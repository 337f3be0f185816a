"""Opens a sink by its address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Sink
from auditdb.export.sinks.compress import SUFFIXES
from auditdb.export.sinks.frames import FRAMES, PRESETS, array
from auditdb.export.sinks.secrets import Secrets
from auditdb.export.sinks.webhook import stream_secret

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REMOTE = {"http", "https", "tls", "s3", "gs", "az"}
_OTHERS = {"syslog+tcp", "syslog+tls"}
_ENCRYPTED = {"http": "https", "ftp": "sftp", "syslog": "syslog+tls", "syslog+tcp": "syslog+tls"}
STDOUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a sink.

    Attributes:
        compression: gzip, zstd or none. Default: gzip.
        timeout: time limit of a request, in seconds.
        array: whether HTTPS sends a JSON array instead of lines.
        every: seconds between two deliveries with `follow`. The default depends on the sink.
    """

    compression: str = "gzip"
    timeout: float = 30
    array: bool = False
    every: float | None = None


def options_of(given: dict[str, Any]) -> Options:
    """Return the options that a subscription keeps.

    Raises:
        InvalidInput: one is unknown, or has another type.
    """
    known = {"compression": str, "timeout": float, "array": bool, "every": float}
    for name, value in given.items():
        if name not in known:
            raise InvalidInput(
                f"{name} is not an option of a sink; the options are {', '.join(known)}"
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if known[name] is float and not (is_number and 0 <= value <= 86_400):
            raise InvalidInput(f"{name} is {value!r}; give seconds, at most a day")
        if known[name] is not float and not isinstance(value, known[name]):
            raise InvalidInput(f"{name} is {value!r}, which is not valid")
    options = Options(**given)
    if options.compression not in SUFFIXES:
        raise InvalidInput(f"compression is {options.compression!r}; it is one of gzip, zstd, none")
    return options


def pause_of(url: str, options: Options) -> float:
    """Return the seconds between two deliveries; longer for files, so that they are fewer."""
    if options.every is not None:
        return options.every
    is_quick = url == STDOUT or urlsplit(url).scheme.rpartition("+")[2] in {"http", "https", "tls"}
    return 0.0 if is_quick else 60.0


def check_sink(url: str) -> str:
    """Return the address of a sink, if it may be stored.

    Raises:
        InvalidInput: it is invalid, or contains a secret.
    """
    if url == STDOUT:
        return url
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise InvalidInput("the address of the sink is malformed (not shown)") from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "the address of a sink is stored and shown: leave out user, password and what follows "
            "? or #, and give tokens by AUDITDB_SINK_TOKEN or a file of secrets"
        )
    if not parts.scheme or "://" not in url:
        raise InvalidInput(
            f"{url!r} is not the address of a sink; give -, file:///directory, s3://bucket/prefix, "
            "https://host/path, or another of docs/export.md"
        )
    _check_parts(parts, host, port)
    return url


def _check_parts(parts: SplitResult, host: str | None, port: int | None) -> None:
    scheme = parts.scheme
    if scheme == "file":
        if host or not parts.path.startswith("/"):
            raise InvalidInput("write a directory as file:///directory, with three slashes")
        return
    if not host and (not parts.path.strip("/") or scheme.rpartition("+")[2] in _REMOTE):
        raise InvalidInput(f"the address of the sink names nothing behind {scheme}://")
    if scheme in _ENCRYPTED or scheme.endswith("+http"):
        if not scheme.endswith("http") or host not in _LOOPBACK:
            raise InvalidInput(
                f"{scheme}:// to another machine is not encrypted: "
                f"{_ENCRYPTED.get(scheme, scheme + 's')}:// is"
            )
    preset, _, transport = scheme.rpartition("+")
    is_known = preset in PRESETS if transport in {"http", "https"} else scheme in _OTHERS
    if preset and not is_known:
        raise InvalidInput(f"{scheme}:// is not the address of a sink; see docs/export.md")
    if not preset and (near := get_close_matches(scheme, PRESETS, 1, 0.7)):
        raise InvalidInput(
            f"{scheme}:// is not the address of a sink; did you mean {near[0]}+https://?"
        )


def open_sink(
    url: str, *, secrets: Secrets, options: Options, array_media_type: str | None = None
) -> Sink:
    """Open a sink, without a connection yet.

    Args:
        url: its address.
        secrets: its secrets.
        options: its options.
        array_media_type: media type of a JSON array of the events.

    Raises:
        InvalidInput: the address is invalid, a package is missing, or a secret is malformed.
    """
    check_sink(url)
    if url == STDOUT:
        from auditdb.export.sinks.stdout import StandardOutput

        return StandardOutput()
    parts = urlsplit(url)
    if parts.scheme == "file":
        from auditdb.export.sinks.files import Directory

        return Directory(Path(unquote(parts.path)), compression=options.compression)
    if parts.scheme == "syslog+tls":
        from auditdb.export.sinks.syslog import Syslog

        return Syslog(str(parts.hostname), parts.port or 6514, timeout=options.timeout)
    preset, _, transport = parts.scheme.rpartition("+")
    if transport in {"http", "https"}:
        return _open_https(
            url.removeprefix(f"{preset}+"), preset, secrets, options, array_media_type)  # fmt: skip
    from auditdb.export.sinks.objects import Objects

    return Objects(url, compression=options.compression)


def open_stream(
    name: str, url: str, *, masters: Sequence[str], options: Options,
    array_media_type: str | None = None,
) -> Sink:  # fmt: skip
    """Open the sink of a stream, whose address is from a customer.

    Raises:
        InvalidInput: the secret for the secrets of streams is missing, or a package is missing.
    """
    if not masters:
        raise InvalidInput(
            "it is a stream of an organisation, which is signed: set AUDITDB_STREAM_SECRET, or "
            "stream_secret in the file of secrets"
        )
    try:
        from auditdb.export.sinks.public import PublicHttps
    except ImportError as error:
        raise InvalidInput("https:// needs a package: pip install 'auditdb[export]'") from error
    check_sink(url)
    secrets = tuple(stream_secret(master, name) for master in masters)
    return PublicHttps(url, secrets=secrets, timeout=options.timeout, media_type=array_media_type)


def _open_https(
    url: str, preset: str, secrets: Secrets, options: Options, array_media_type: str | None
) -> Sink:
    try:
        from auditdb.export.sinks.https import Https
    except ImportError as error:
        raise InvalidInput("https:// needs a package: pip install 'auditdb[export]'") from error
    frame = FRAMES[preset or "https"]
    if options.array:
        if preset:
            raise InvalidInput(f"{preset} has its own format; the option array does not apply")
        frame = replace(frame, body=array, media_type=array_media_type or "application/json")
    if frame.needs_token and not secrets.token:
        raise InvalidInput(
            f"{preset} wants a token: set AUDITDB_SINK_TOKEN, or name a file of secrets"
        )
    return Https(
        url, frame, token=secrets.token, secrets=secrets.signing,
        compression=options.compression, timeout=options.timeout,
    )  # fmt: skip
