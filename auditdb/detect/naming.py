"""What names say: the words of an identifier, and what a column of such a name holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from auditdb.mapping.vocabulary import is_secret as is_secret

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
    """Return an identifier in lower case without underscores, as the defaults of attach see it."""
    return name.replace("_", "").lower()


_TOUCHED = re.compile(
    r"(row)?(updated|modified|changed|touched|synced|refreshed)(at|on|date|time|ts)?"
    r"|(at|date|time)?last(updated|modified|changed|touched)(at|on|date|time)?|updatetime"
    r"|(last|current|previous|next)"
    r"(used|use|usage|request|requested|refill|refilled|seen|active|activity|access|accessed|login|loggedin|signin|signedin|run|ran"
    r"|execution|executed|triggered|checked|polled|synced|heartbeat)(at|on|date|time|ts|ip|from)?"
    r"|(lastused|lastlogin|lastseen|lastsignin|lastaccess)(at|on)?(ip|ipaddress|useragent|by)"
    r"|(login|signin|use|usage|used|view|run|execution|request|call|hit|access|failed|failure|error"
    r"|attempt|failedattempt|failedlogin|failedloginattempt|retry|trigger|invalidattempt)s?"
    r"(count|counter|total)"
    r"|(failed|invalid)(login|password|signin|otp)?(attempts|attempt|logins)|loginattempts"
    r"|(sign|auth)?counter|signcount|lockversion|remaining|rowversion|xmin|searchvector|consumedtimestep"
)


def is_touched(column: str) -> bool:
    """Return whether a column changes by mere use: touch times, last uses, counters.

    >>> [is_touched(c) for c in ("updatedAt", "last_used_ip", "sign_in_count", "created_at")]
    [True, True, True, False]
    """
    return _TOUCHED.fullmatch(flat(column)) is not None


ADMIN_WORDS = frozenset(("owner", "admin", "administrator", "superadmin", "superuser", "coowner"))
ROLE_WORDS = ADMIN_WORDS | frozenset(
    "member user manager viewer editor guest billing developer maintainer contributor moderator"
    " staff collaborator reader writer operator agent employee read write observer reporter"
    " analyst readonly basic standard supervisor root".split()
)
_WIDENING = frozenset(
    "organization account workspace company tenant business super primary system full global co"
    " site head role main".split()
)


def admin_labels(labels: Iterable[str], group: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the labels of a role that make an admin or owner of a group named by these words.

    >>> admin_labels(["OWNER", "org_admin", "BILLING_ADMIN", "TEAM_ADMIN", "manager"])
    ('OWNER', 'org_admin')
    """
    wide = _WIDENING | frozenset(group)
    return tuple(
        label
        for label in labels
        if (said := words(label))
        and said[-1] in ADMIN_WORDS
        and all(word in wide or word in ADMIN_WORDS for word in said[:-1])
    )


def looks_like_roles(labels: Iterable[str]) -> bool:
    """Return whether labels are roles: one of an admin, and as many known words as not."""
    given = [said[-1] for label in labels if (said := words(label))]
    known = sum(word in ROLE_WORDS for word in given)
    return known * 2 >= len(given) > 0 and any(word in ADMIN_WORDS for word in given)


DEAD_LABELS = frozenset(
    "revoked removed deleted disabled deactivated inactive suspended expired left banned blocked"
    " cancelled canceled declined rejected archived former rotated compromised terminated"
    " withdrawn".split()
)
PENDING_LABELS = frozenset(
    "pending invited requested invite awaiting unconfirmed unverified unaccepted applied draft"
    " sent created new onboarding waiting".split()
)


def among(label: str, known: frozenset[str]) -> bool:
    """Return whether a label of a status, in whatever case, is one of the known ones."""
    return re.sub(r"[^a-z]", "", label.lower()) in known


# Words beside "key" or "token" of tables that hold no API keys.
OTHER_KEYS = frozenset(
    "session refresh reset verification verify confirmation email invite csrf oauth oidc magic"
    " push device fcm apns password remember idempotency encryption license ssh gpg public signing"
    " jwt jwk blacklist blocklist denylist usage log event request audit rate login totp twofactor"
    " recovery activation unsubscribe download share webhook cache foreign primary sort"
    " translation registration authorization webauthn passkey security backup"
    " impersonation".split()
)
