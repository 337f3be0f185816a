"""The signature of Standard Webhooks, which authenticates the sender of a delivery."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from auditdb.errors import InvalidInput

_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """Return the key of a secret such as `whsec_…`.

    Raises:
        InvalidInput: the secret is invalid.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "the signing secret is not valid base64; give one such as whsec_…"
        ) from error
    if not 24 <= len(key) <= 64:
        raise InvalidInput("the signing secret must be whsec_ and base64 of 24 to 64 bytes")
    return key


def stream_secret(master: str, name: str) -> str:
    """Return the signing secret of a stream of an organisation.

    Args:
        master: the master secret of the vendor. All others are derived from it, so none is stored.
        name: the name of the stream, which is never reused.
    """
    key = hmac.digest(master.encode(), f"auditdb stream {name}".encode(), hashlib.sha256)
    return _PREFIX + base64.b64encode(key).decode()


def check_masters(given: object) -> tuple[str, ...]:
    """Return the master secrets of streams: one, or several during a rotation.

    Raises:
        InvalidInput: a secret is not a text of at least 32 characters.
    """
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list | tuple) or not all(
        isinstance(one, str) and len(one) >= 32 for one in found
    ):
        raise InvalidInput(
            "stream_secret is a text of at least 32 characters, or a list of such while one takes "
            "the place of the other; make one by: openssl rand -base64 32"
        )
    return tuple(found)


def signature_headers(keys: list[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery, with signatures if there are keys.

    Args:
        keys: the signing keys; two during a rotation.
        id: the id of the delivery, the same in a repetition.
        timestamp: of this attempt, in seconds.
        body: what is sent, byte for byte.
    """
    headers = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    signed = b".".join([id.encode(), str(timestamp).encode(), body])
    made = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    if made:
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in made)
    return headers
