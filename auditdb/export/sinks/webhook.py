"""The signature of Standard Webhooks, by which a receiver knows who sent a delivery."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from auditdb.errors import InvalidInput

_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """Return the key that a secret such as `whsec_…` stands for.

    Raises:
        InvalidInput: it is none.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the signing secret is no base64; make one as whsec_…") from error
    if not 24 <= len(key) <= 64:
        raise InvalidInput("the signing secret must be whsec_ and base64 of 24 to 64 bytes")
    return key


def stream_secret(master: str, name: str) -> str:
    """Return the secret that signs what goes to a stream of an organisation.

    Args:
        master: the vendor's, which makes all of them, so that none is stored.
        name: of the stream, which no other ever has.
    """
    key = hmac.digest(master.encode(), f"auditdb stream {name}".encode(), hashlib.sha256)
    return _PREFIX + base64.b64encode(key).decode()


def check_masters(given: object) -> tuple[str, ...]:
    """Return the secrets from which those of streams are made: one, or several while one goes.

    Raises:
        InvalidInput: one is no text of 32 characters or more.
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
    """Return the headers that tell a delivery, and sign it if there are keys.

    Args:
        keys: of the secrets; two while one takes the place of the other.
        id: of the delivery, the same when it is repeated.
        timestamp: of this attempt, in seconds.
        body: what is sent, byte for byte.
    """
    headers = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    signed = b".".join([id.encode(), str(timestamp).encode(), body])
    made = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    if made:
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in made)
    return headers
