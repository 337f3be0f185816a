"""What a leaf of the tree commits to: an event, in two groups, or a tick.

The personal group is blinded by a salt of its event. After an erasure, the commitment replaces
values and salt, and the leaf stays the same.
"""

from __future__ import annotations

from hashlib import sha256

SALT = 16
EVENT = b"\1"
TICK = b"\2"


def commit(salt: bytes, personal: bytes) -> bytes:
    """Return the commitment to the personal group of an event, 32 bytes."""
    return sha256(salt + personal).digest()


def event_entry(skeleton: bytes, commitment: bytes) -> bytes:
    """Return the entry of an event: what is hashed to its leaf."""
    return EVENT + commitment + skeleton


def tick_entry(text: bytes) -> bytes:
    """Return the entry of a tick, which follows those of its events."""
    return TICK + text
