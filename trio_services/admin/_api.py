"""The JSON of ``/api/v1``: what was read of an application, for programs. Pure."""

from __future__ import annotations

import json
import math

import attrs

from ..supervision import ServiceStatistics
from ..telemetry import Readings


def as_status(readings: Readings) -> bytes:
    """The tree of services and the queues; may take a while, and be called in a thread."""
    status = {
        "services": _service(readings.services, readings.now),
        "queues": {name: attrs.asdict(books) for name, books in readings.queues.items()},
    }
    # ASCII only: a lone surrogate, from a file name for example, would not encode.
    return json.dumps(status, separators=(",", ":")).encode()


def _service(one: ServiceStatistics, now: float) -> dict[str, object]:
    failure = one.failure
    return {
        "name": one.name,
        "state": one.state,
        "since": now - one.since,
        "critical": one.critical,
        "health": {"status": one.health.status.name.lower(), "reason": one.health.reason},
        "restarts": one.restarts,
        "breaker": one.breaker,
        "next_start": _until(one.next_start, now),
        # Not its message, which may hold passwords: no token is asked for.
        "failure": None if failure is None else {"type": failure.type, "where": failure.where},
        "waits_on": one.waits_on,
        "children": [_service(child, now) for child in one.children],
    }


def _until(when: float | None, now: float) -> float | None:
    """JSON has no infinity: what never comes is none."""
    return when - now if when is not None and when < math.inf else None
