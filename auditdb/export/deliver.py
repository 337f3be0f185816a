"""Delivers to a sink: halves refused deliveries, and computes the wait after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from auditdb.export.sinks.base import Delivery, Line, Poison, Progress, Rejected, Sink

# If a sink refuses so many events and accepts none, its configuration is wrong, not the events.
_TOO_MANY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The waits after failures: exponential backoff with jitter.

    Attributes:
        first: seconds after the first failure.
        most: the maximum in seconds, unless the sink asks for more.
        attempts: number of attempts of a run without `follow`.
    """

    first: float = 1.0
    most: float = 300.0
    attempts: int = 5

    def wait(self, failures: int, asked: float | None = None) -> float:
        """Return the seconds to wait after so many failures in a row."""
        usual = min(self.first * 2.0 ** min(failures - 1, 30), self.most)
        # Jitter: otherwise all subscriptions of a receiver would retry at the same time.
        usual *= random.uniform(0.5, 1.0)
        return max(usual, asked or 0.0)


@dataclass(slots=True)
class Outcome:
    """The outcome of a delivery."""

    taken: int = 0
    refused: list[tuple[Line, str]] = field(default_factory=list)


async def deliver(sink: Sink, delivery: Delivery, *, has_taken: bool) -> Outcome:
    """Deliver to a sink, without the events that it refuses permanently.

    Args:
        sink: the sink.
        delivery: the delivery.
        has_taken: whether the sink accepted events before. If not, a refused event may be the fault
            of the configuration.

    Raises:
        Retry: as `Sink.put`.
        Rejected: as `Sink.put`; or the sink refuses every event.
    """
    outcome = Outcome()
    await _give(sink, delivery, outcome)
    if outcome.refused and not outcome.taken and (len(outcome.refused) > 1 or not has_taken):
        raise Rejected(_refuses_all(outcome))
    return outcome


async def _give(sink: Sink, delivery: Delivery, outcome: Outcome) -> None:
    known = delivery.progress or Progress()
    if delivery.name not in known.taken | known.refused.keys():
        try:
            await sink.put(delivery)
            known.taken.add(delivery.name)
        except Poison as error:
            known.refused[delivery.name] = str(error)
    if delivery.name in known.taken:
        outcome.taken += len(delivery.lines)
    elif len(delivery.lines) > 1:
        for half in delivery.halves():
            await _give(sink, half, outcome)
    else:
        outcome.refused.append((delivery.lines[0], known.refused[delivery.name]))
        if len(outcome.refused) >= _TOO_MANY and not outcome.taken:
            raise Rejected(_refuses_all(outcome))


def _refuses_all(outcome: Outcome) -> str:
    return f"the sink refuses every event, so none is set aside: {outcome.refused[0][1]}"
