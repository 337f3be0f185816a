"""The page where an admin of an organisation reads the log: an ASGI application to mount.

Needs the extra `web`.
"""

from __future__ import annotations

from auditdb.web.access import Access
from auditdb.web.app import app
from auditdb.web.serve import listen, serve

__all__ = ["Access", "app", "listen", "serve"]
