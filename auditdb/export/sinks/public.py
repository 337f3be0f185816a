"""HTTPS to an address from a customer: only to the public internet, not to internal hosts.

Each request resolves the host here and connects to the checked IP address, so that a DNS change in
between (rebinding) has no effect. TLS verifies the name. Errors do not reveal refused addresses.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpx

from auditdb.export.sinks.base import Rejected, Retry, SinkError
from auditdb.export.sinks.frames import FRAMES, array
from auditdb.export.sinks.https import Https, status_problem

# Number of addresses of a host to try, and of bytes of a response to read.
_TRIED, _MOST_READ = 3, 2**16
_UNICAST = IPv6Network("2000::/3")
# Networks with an embedded IPv4 address in their last 32 bits, or after the first 16.
_NAT64, _6TO4 = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
# A public address that at Azure is internal to each machine.
_WIRE_SERVER = IPv4Address("168.63.129.16")
# Own threads: a slow name server must not block lookups of other sinks.
_LOOKUPS = ThreadPoolExecutor(8, thread_name_prefix="auditdb lookup")


def is_public(text: str) -> bool:
    """Return whether an IP address is public."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address in _6TO4:
            inner = IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
        if inner is None:
            return address in _UNICAST and address.is_global and address.teredo is None
        address = inner
    return address.is_global and not address.is_multicast and address != _WIRE_SERVER


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host; none if it is unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PublicHttps(Https):
    """Sends signed deliveries to a public address, without a proxy.

    Each body is an uncompressed JSON array, as libraries for Standard Webhooks expect.
    """

    def __init__(
        self, url: str, *, secrets: tuple[str, ...], timeout: float = 10,
        media_type: str | None = None,
    ) -> None:  # fmt: skip
        frame = replace(FRAMES["https"], body=array, media_type=media_type or "application/json")
        super().__init__(
            url, frame, secrets=secrets, timeout=timeout, compression="none", trust_env=False
        )
        parts = urlsplit(url)
        self._name, self._port = str(parts.hostname), parts.port or 443
        self._unreachable = f"{self._host} cannot be reached at a public address"

    async def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        found = await asyncio.get_running_loop().run_in_executor(
            _LOOKUPS, look_up, self._name, self._port)  # fmt: skip
        problem: SinkError = Retry(self._unreachable)
        for address in [text for text in found if is_public(text)][:_TRIED]:
            try:
                return await self._send_to(address, body, headers)
            except httpx.ConnectError as error:
                problem = self._explained(error)
        raise problem

    async def _send_to(
        self, address: str, body: bytes, headers: dict[str, str]
    ) -> tuple[httpx.Response, bytes]:
        text = b""
        async with self._client.stream(
            "POST", httpx.URL(self._url).copy_with(host=address), content=body,
            headers={**headers, "host": self._host}, extensions={"sni_hostname": self._name},
        ) as answer:  # fmt: skip
            # Read raw bytes: a small response may decompress to a large one.
            async for part in answer.aiter_raw():
                text += part
                if len(text) > _MOST_READ:
                    break
        return answer, text

    def _problem(self, answer: httpx.Response, text: bytes, lines: int) -> SinkError | None:
        status = answer.status_code
        said = f"{self._host} answers {status}"
        if 300 <= status < 400:
            return Rejected(f"{said}, and redirects are not followed: give the last address")
        return status_problem(answer, said)

    def _explained(self, error: httpx.HTTPError) -> SinkError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Retry(f"the certificate of {self._host} is not valid")
        return Retry(self._unreachable)
