"""Threads for what blocks: as many as there are deliveries at once, so that none waits for others.

Those of the event loop are few, and belong to the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

MOST = 80
_THREADS = ThreadPoolExecutor(MOST, thread_name_prefix="auditdb-sink")


async def in_thread(work: Callable[..., None], *given: Any) -> None:
    """Do work that blocks."""
    await asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, *given))
