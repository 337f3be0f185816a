"""Viewer tokens: a signed statement of who reads for which organisation, good for a minute."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode

from auditdb.errors import InvalidInput
from auditdb.values.convert import Id, as_text

_KEY = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST_LIFETIME = 3600
_LONGEST_TOKEN = 2000


def mint(
    key: str, viewer_id: Id, organization_id: Id, *, lifetime: int = 60, now: float | None = None
) -> str:
    """Return a token for the setting `auditdb.viewer`: v1.key_id.user.organization.expires.mac.

    Args:
        key: what `audit.create_key()` returned, key_id.secret.
        viewer_id: the user who reads.
        organization_id: the organisation whose events are read.
        lifetime: seconds until the token expires, 1 to 3600; longer than clocks may differ.
        now: seconds since 1970; by default the clock of this machine.

    Raises:
        InvalidInput: an invalid key, identifier or lifetime.

    >>> mint("k1.secret", "7", "acme", now=1_700_000_000).rpartition(".")[0]
    'v1.k1.Nw.YWNtZQ.1700000060'
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key.strip()):
        raise InvalidInput(
            "the signing key is not of the form key_id.secret; "
            "AUDITDB_KEY holds what `auditdb key create` printed"
        )
    if not 1 <= lifetime <= _LONGEST_LIFETIME:
        raise InvalidInput(f"a token cannot live {lifetime} seconds; give 1 to {_LONGEST_LIFETIME}")
    key_id, _, secret = key.strip().partition(".")
    expires = int(time.time() if now is None else now) + lifetime
    user, tenant = (
        _base64url("viewer_id", viewer_id),
        _base64url("organization_id", organization_id),
    )
    message = f"v1.{key_id}.{user}.{tenant}.{expires}"
    mac = hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()
    token = f"{message}.{mac}"
    if len(token) > _LONGEST_TOKEN:
        raise InvalidInput("viewer_id and organization_id are too long for a token")
    return token


def _base64url(name: str, value: Id) -> str:
    text = as_text(name, value)
    if not text:
        raise InvalidInput(f"{name} is empty; give the id of a user and of an organisation")
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
