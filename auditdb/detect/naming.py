"""The words of an identifier, whatever its spelling."""

from __future__ import annotations

import re
from functools import cache

_SYNONYMS = {
    "organisation": "organization",
    "org": "organization",
    "orgs": "organization",
    "usr": "user",
    "people": "person",
    "invitation": "invite",
    "mfa": "twofactor",
    "2fa": "twofactor",
    "tfa": "twofactor",
    "auths": "auth",
}
# Words that are written together without a sign of where one ends: apikey, organizationuser.
_VOCABULARY = frozenset(
    "access account action address admin api app auth automation backup bot code company"
    " condition count credential customer device edge email execution factor flow group hash"
    " history id input instance invite key log login member membership name node order org"
    " organisation organization output owner passkey password permission person personal"
    " pipeline profile project recovery role run secret service session staff status step"
    " table tbl team tenant token totp trigger two type user username uuid version webauthn"
    " workflow workspace".split()
)
_PAIRS = {
    ("two", "factor"): "twofactor",
    ("2", "fa"): "twofactor",
    ("two", "fa"): "twofactor",
    ("multi", "factor"): "twofactor",
    ("two", "step"): "twofactor",
    ("o", "auth"): "oauth",
    ("o", "auth", "2"): "oauth",
    ("web", "authn"): "webauthn",
    ("pass", "key"): "passkey",
    ("work", "flow"): "workflow",
    ("sign", "in"): "login",
    ("log", "in"): "login",
}


def singular(word: str) -> str:
    """Return the singular of an English noun in lower case.

    >>> [singular(w) for w in ("keys", "companies", "statuses", "access", "status", "boxes")]
    ['key', 'company', 'status', 'access', 'status', 'box']
    """
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "uses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "as")):
        return word[:-1]
    return word


def _split(word: str) -> tuple[str, ...]:
    """Take apart what is written together, if all of it is known."""
    if word in _VOCABULARY or singular(word) in _VOCABULARY:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        head, rest = word[:end], word[end:]
        if head in _VOCABULARY or singular(head) in _VOCABULARY:
            tail = _split(rest)
            if all(singular(part) in _VOCABULARY for part in tail):
                return (head, *tail)
    return (word,)


@cache
def words(name: str) -> tuple[str, ...]:
    """Return the words of an identifier: lower case, singular, spellings made one.

    >>> words("OrganisationGroupMembers"), words("user_apikeys"), words("twoFactorEnabled")
    (('organization', 'group', 'member'), ('user', 'api', 'key'), ('twofactor', 'enabled'))
    """
    raw = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", name)
    parts = [part for word in raw for part in _split(word.lower())]
    joined: list[str] = []
    while parts:
        size = next((n for n in (3, 2) if tuple(parts[:n]) in _PAIRS), 1)
        joined.append(_PAIRS[tuple(parts[:size])] if size > 1 else parts[0])
        del parts[:size]
    said = tuple(_SYNONYMS.get(w, _SYNONYMS.get(singular(w), singular(w))) for w in joined)
    return said[1:] if said[:1] == ("tbl",) and said[1:] else said or (name,)


def has(name: str, *wanted: str) -> bool:
    """Return whether an identifier contains one of the words."""
    return not frozenset(wanted).isdisjoint(words(name))


def flat(name: str) -> str:
    """Return an identifier in lower case without underscores, as attach sees it."""
    return name.replace("_", "").lower()


# Words beside "key" or "token" of tables that hold no API keys.
OTHER_KEYS = frozenset(
    "session refresh reset verification verify confirmation email invite csrf oauth oidc magic"
    " push device fcm apns password remember idempotency encryption license ssh gpg public signing"
    " jwt jwk blacklist blocklist denylist usage log event request audit rate login totp twofactor"
    " recovery activation unsubscribe download share webhook cache foreign primary sort"
    " translation registration authorization webauthn passkey security backup"
    " impersonation".split()
)
