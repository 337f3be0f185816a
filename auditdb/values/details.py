"""Details without their secrets, by the names alone: what a context costs is not to be felt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from auditdb.values.convert import is_text, plain

# What each name of a secret, or of headers, has a part of. A constant, since the vocabulary takes
# longer to load than a whole request may take; the tests compare it.
WORDS = re.compile(
    "passw|passphrase|pass|pwd|pswd|secret|token|hash|salt|encrypt|cipher|"
    "credential|mnemonic|phrase|recovery|seed|otp|pin|cvv|cvc|ssn|pem|p12|pfx|"
    "pkcs|keystore|keytab|psk|htpasswd|jwt|jwk|pat|bearer|auth|cookie|srf|sess|"
    "verif|assert|saml|private|key|code|link|url|uri|conn|header",
    re.IGNORECASE,
)
_NESTED = (dict, list)


def details_without_secrets(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details as JSON without secrets; the usual ones, a few texts, at little cost.

    >>> details_without_secrets({"ip": "192.0.2.1", "token": "hunter2", "at": {1}})
    {'ip': '192.0.2.1', 'token': '[redacted]', 'at': [1]}
    """
    for name, value in details.items():
        if type(value) is not str or not is_text(value) or not _is_harmless(name):
            shown: dict[str, Any] = without_secrets(plain(details))
            return shown
    return dict(details)


def without_secrets(value: Any) -> Any:
    """Return JSON as audit.redact_json does, but do not look into texts.

    Flags and nulls stay; where headers are told apart, those that hold no credential stay too.

    >>> without_secrets({"ip": "192.0.2.1", "proxy": {"password": "hunter2"}})
    {'ip': '192.0.2.1', 'proxy': {'password': '[redacted]'}}
    """
    if type(value) is dict:
        for name, item in value.items():
            if type(item) in _NESTED or len(name) > 200 or _says(name):
                return {name: _shown(name, item) for name, item in value.items()}
        return value
    return [without_secrets(item) for item in value] if type(value) is list else value


def _shown(name: str, value: Any) -> Any:
    said = _says(name) if len(name) <= 200 else _says.__wrapped__(name[:100] + name[-100:])
    if not said:
        return without_secrets(value)
    if value is None or isinstance(value, bool):
        return value
    if said == "headers" and type(value) is dict:
        from auditdb.mapping.vocabulary import says

        return {
            key: without_secrets(item) if says("harmless", key[:200]) else _hidden(item)
            for key, item in value.items()
        }
    return "[redacted]" if said == "secret" else without_secrets(value)


def _hidden(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else "[redacted]"


@lru_cache(maxsize=4096)
def _is_harmless(name: str) -> bool:
    return len(name) <= 200 and is_text(name) and not _says(name)


@lru_cache(maxsize=4096)
def _says(name: str) -> Literal["secret", "headers", ""]:
    if not WORDS.search(name):
        return ""
    from auditdb.mapping.vocabulary import is_secret, says

    return "secret" if is_secret(name) else "headers" if says("headers", name) else ""
