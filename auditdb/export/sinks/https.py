"""HTTPS: a request for each delivery, compressed, signed, with a deadline; at least once.

A repetition has the same `webhook-id`. Redirects are not followed, so that secrets go only to the
given address.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from auditdb._version import __version__
from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Delivery, Poison, Rejected, Retry, SinkError
from auditdb.export.sinks.compress import check_compression, compress
from auditdb.export.sinks.frames import Frame, pieces
from auditdb.export.sinks.webhook import signature_headers, signing_key

_PASSES = {408, 423, 425, 429}
_POISON = {400, 413, 422}
# Number of bytes of a response that are read; the text goes into one line.
_MOST_READ = 2**20


class Https:
    """Sends deliveries to one address in the frame of one kind of receiver."""

    def __init__(
        self,
        url: str,
        frame: Frame,
        *,
        token: str | None = None,
        secrets: tuple[str, ...] = (),
        compression: str = "gzip",
        timeout: float = 30,
        trust_env: bool = True,
    ) -> None:
        self._url = url.rstrip("/") + frame.path if frame.path else url
        self._host = urlsplit(url).netloc
        self._frame, self._timeout = frame, timeout
        self._compression = check_compression(compression)
        self._keys = [signing_key(secret) for secret in secrets] if frame.is_signed else []
        # Do not decompress data from another machine.
        self._headers = {"user-agent": f"auditdb/{__version__}", "accept-encoding": "identity"}
        if token:
            if not (token.isascii() and token.isprintable()):
                raise InvalidInput(
                    "the token of the sink (not shown) has characters that a header must not have"
                )
            name, form = frame.token_header
            self._headers[name] = form % token
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(), timeout=timeout, follow_redirects=False,
            trust_env=trust_env,  # Proxy variables and netrc.
            limits=httpx.Limits(max_connections=4, keepalive_expiry=30))  # fmt: skip

    async def put(self, delivery: Delivery) -> None:
        """Send it, in as many requests as the limits of the receiver require."""
        taken = delivery.progress.taken if delivery.progress else set()
        for piece in pieces(delivery, self._frame.most):
            if piece.name in taken:
                continue
            try:
                async with asyncio.timeout(self._timeout):
                    await self._send(piece)
            except TimeoutError as error:
                raise Retry(f"{self._host} did not answer in {self._timeout:g} s") from error
            except httpx.HTTPError as error:
                raise self._explained(error) from error
            taken.add(piece.name)

    async def _send(self, delivery: Delivery) -> None:
        body = compress(self._frame.body(delivery), self._compression)
        headers = {**self._headers, "content-type": self._frame.media_type or delivery.media_type}
        if self._compression != "none":
            headers["content-encoding"] = self._compression
        headers |= signature_headers(self._keys, delivery.id, int(time.time()), body)
        problem = self._problem(*await self._exchange(body, headers), len(delivery.lines))
        if problem is not None:
            raise problem

    async def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """Send a request; return the response and the beginning of its body."""
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            text = b""
            async for part in answer.aiter_raw():
                text += part
                if len(text) > _MOST_READ:
                    break
        return answer, text

    def _problem(self, answer: httpx.Response, text: bytes, lines: int) -> SinkError | None:
        status = answer.status_code
        if 200 <= status < 300:
            return self._frame.check(text, lines)
        said = f"{self._host} answers {status} {answer.reason_phrase}".rstrip()
        begin = " ".join(text[:2000].decode("utf-8", "replace").split())[:200]
        detail = f"{said}: {begin}" if begin else said
        if 300 <= status < 400:
            place = answer.headers.get("location", "elsewhere")
            return Rejected(f"{said}, which leads to {place[:200]}: give that address")
        if status in (401, 403, 407):
            return Rejected(f"{said}: the token or secret is missing or not valid")
        return status_problem(answer, detail)

    def _explained(self, error: httpx.HTTPError) -> SinkError:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            reason = text.partition("verify failed: ")[2].partition(" (_ssl")[0] or text
            return Retry(f"the certificate of {self._host} is not valid: {reason}")
        return Retry(f"{self._host} cannot be reached, or closed the connection: {text}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def status_problem(answer: httpx.Response, said: str) -> SinkError | None:
    """Return what a status means, in some words; none where all was taken."""
    status = answer.status_code
    if 200 <= status < 300:
        return None
    if status in _PASSES or status >= 500:
        return Retry(said, _retry_after(answer.headers.get("retry-after")))
    return Poison(said) if status in _POISON else Rejected(said)


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a receiver asks to wait, at most a day."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), 86_400.0) if seconds == seconds else None
