"""Threads for blocking work: one for each concurrent delivery, so that none waits for another.

The threads of the event loop are few, and belong to the application.
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
    """Run blocking work in a thread."""
    await asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, *given))
