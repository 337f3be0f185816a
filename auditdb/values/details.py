"""Removes secrets from details, only by name, so that a context stays cheap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from auditdb.values.convert import is_text, json_value

# Each name of a secret, or of headers, contains one of these. A constant, because loading the
# vocabulary takes longer than a whole request; tests compare it with the vocabulary.
WORDS = re.compile(
    "passw|passphrase|pass|pwd|pswd|secret|token|hash|salt|encrypt|cipher|credential|"
    "mnemonic|phrase|recovery|seed|otp|pin|cvv|cvc|ssn|pem|p12|pfx|pkcs|keystore|"
    "keytab|psk|htpasswd|kennwort|geheim|zugang|schl|wachtwoord|passord|senord|"
    "adgangskode|salasana|passe|mdp|contrase|clave|senha|parol|haslo|heslo|jelsz|"
    "sifre|sandi|jwt|jwk|pat|bearer|auth|cookie|srf|sess|verif|assert|saml|private|"
    "key|code|link|url|uri|conn|header",
    re.IGNORECASE,
)
_NESTED = (dict, list)
# Of {"name": "password", "value": "x"}, as audit_private.redact_object has them.
_NAMES = frozenset(("name", "key", "header", "field", "k", "parameter", "id"))
_VALUES = frozenset(("value", "val", "v", "content"))


def details_without_secrets(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details as JSON without secrets, with a fast path for a few texts.

    >>> details_without_secrets({"ip": "192.0.2.1", "token": "hunter2", "at": {1}})
    {'ip': '192.0.2.1', 'token': '[redacted]', 'at': [1]}
    """
    for name, value in details.items():
        is_usual = type(name) is type(value) is str and len(name) <= 200 and is_text(value)
        if not is_usual or not _is_harmless(name):
            redacted: dict[str, Any] = without_secrets(json_value(details))
            return redacted
    return dict(details)


def without_secrets(value: Any) -> Any:
    """Redact JSON like audit_private.redact_json, but do not search texts.

    Booleans and nulls stay. Headers without credentials stay, if headers are separate.

    >>> without_secrets({"ip": "192.0.2.1", "proxy": {"password": "hunter2"}})
    {'ip': '192.0.2.1', 'proxy': {'password': '[redacted]'}}
    """
    if type(value) is dict:
        if not _VALUES.isdisjoint(map(str.lower, value)) and any(
            name.lower() in _NAMES and _names_secret(item) for name, item in value.items()
        ):
            value = {
                name: _redact_value(item) if name.lower() in _VALUES else item
                for name, item in value.items()
            }
        for name, item in value.items():
            if type(item) in _NESTED or len(name) > 200 or _verdict(name):
                return {name: _redact(name, item) for name, item in value.items()}
        return value
    if type(value) is not list:
        return value
    if len(value) == 2 and _names_secret(value[0]):
        return [value[0], _redact_value(value[1])]
    return [without_secrets(item) for item in value]


def _redact(name: str, value: Any) -> Any:
    verdict = _verdict(name) if len(name) <= 200 else _verdict.__wrapped__(name[:100] + name[-100:])
    if not verdict:
        return without_secrets(value)
    if value is None or isinstance(value, bool):
        return value
    if verdict == "headers" and type(value) is dict:
        from auditdb.mapping.vocabulary import says

        return {
            key: without_secrets(item) if says("harmless", key[:200]) else _redact_value(item)
            for key, item in value.items()
        }
    return "[redacted]" if verdict == "secret" else without_secrets(value)


def _names_secret(value: Any) -> bool:
    return type(value) is str and len(value) <= 200 and _verdict(value) == "secret"


def _redact_value(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else "[redacted]"


@lru_cache(maxsize=4096)
def _is_harmless(name: str) -> bool:
    return is_text(name) and name.lower() not in _VALUES and not _verdict(name)


@lru_cache(maxsize=4096)
def _verdict(name: str) -> Literal["secret", "headers", ""]:
    if not WORDS.search(name):
        return ""
    from auditdb.mapping.vocabulary import is_secret, says

    return "secret" if is_secret(name) else "headers" if says("headers", name) else ""
