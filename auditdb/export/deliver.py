"""Gives a delivery to a sink: halves what it refuses, and says how long to wait after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from auditdb.export.sinks.base import Delivery, Line, Poison, Progress, Rejected, Sink

# So many events that are refused, and none taken, are no poison: the sink is set up wrongly.
_TOO_MANY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait after failures: doubled each time, with jitter.

    Attributes:
        first: seconds after the first failure.
        most: seconds at the most, unless the sink itself asks for more.
        attempts: how often a run that does not follow tries.
    """

    first: float = 1.0
    most: float = 300.0
    attempts: int = 5

    def wait(self, failures: int, asked: float | None = None) -> float:
        """Return for how many seconds to leave a sink alone after so many failures in a row."""
        usual = min(self.first * 2.0 ** min(failures - 1, 30), self.most)
        # Spread, or all subscriptions of one receiver would come back at once.
        usual *= random.uniform(0.5, 1.0)
        return max(usual, asked or 0.0)


@dataclass(slots=True)
class Outcome:
    """What became of the events of a delivery."""

    taken: int = 0
    refused: list[tuple[Line, str]] = field(default_factory=list)


async def deliver(sink: Sink, delivery: Delivery, *, has_taken: bool) -> Outcome:
    """Give a delivery to a sink, without those events that it refuses whatever is tried.

    Args:
        sink: where it goes.
        delivery: what goes.
        has_taken: whether the sink took events before; if not, an event that is refused alone
            is no sign of what is wrong with it.

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
