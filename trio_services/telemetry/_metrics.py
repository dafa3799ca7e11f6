"""Metrics: the only file that knows prometheus-client. What was read becomes OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import cast

import attrs
from prometheus_client.metrics_core import (
    CounterMetricFamily as Counter,
    GaugeMetricFamily as Gauge,
    HistogramMetricFamily as Histogram,
    Metric,
    StateSetMetricFamily as StateSet,
)
from prometheus_client.openmetrics import exposition
from prometheus_client.registry import Collector

from ..lifecycle import HealthStatus, State
from ..queues import (
    BOUNDS,
    HistogramStatistics,
    PoolStatistics,
    QueueStatistics,
    ScheduleStatistics,
)
from ..resilience import BreakerState
from ..supervision import ServiceStatistics
from ._meter import Readings

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST
"""What `as_openmetrics` gives."""

_BOUNDS = [*map(str, BOUNDS), "+Inf"]
_write = cast("Callable[[Collector], bytes]", vars(exposition)["generate_latest"])  # untyped there


def as_openmetrics(readings: Readings) -> bytes:
    """The text that Prometheus scrapes.

    All labels are names that somebody configured, or one of few constants, so that their number is
    bounded. It takes a while with thousands of services, and may be called in a thread.
    """
    return _write(_Collector(readings))


@attrs.frozen
class _Collector(Collector):
    readings: Readings

    def collect(self) -> Iterator[Metric]:
        readings = self.readings
        leaves = [one for one in readings.services.walk() if not one.children]
        pools = [(one.name, one.work) for one in leaves if isinstance(one.work, PoolStatistics)]
        schedules = [
            (one.name, one.work) for one in leaves if isinstance(one.work, ScheduleStatistics)
        ]
        yield from _overall(readings.services, leaves)
        yield from _services(list(readings.services.walk()), readings)
        yield from _queues(readings)
        yield from _pools(pools)
        yield from _schedules(schedules, readings.now)
        lag = _histogram("event_loop_lag", "How late the event loop woke a task.", [])
        _add(lag, [], readings.lag)
        yield lag


def _overall(root: ServiceStatistics, leaves: Iterable[ServiceStatistics]) -> Iterator[Metric]:
    health = StateSet(
        "trio_services_health", "How well the application is, as its supervisors see it.", labels=[]
    )
    health.add_metric([], {one.name.lower(): one is root.health.status for one in HealthStatus})
    yield health
    states = dict.fromkeys(State, 0)
    for one in leaves:
        states[one.state] += 1
    by_state = _gauge("services", "Services in each state.", ["state"])
    for state, count in states.items():
        by_state.add_metric([state], count)
    yield by_state


def _services(services: Iterable[ServiceStatistics], readings: Readings) -> Iterator[Metric]:
    labels = ["service"]
    running = _gauge("service_running", "Whether a service is ready.", labels)
    restarts = _counter("service_restarts", "How often a service was started again.", labels)
    failures = _counter("service_failures", "How often a service failed.", labels)
    breaker = _breaker("service_breaker", "What the breaker around a service lets through.")
    for one in services:
        running.add_metric([one.name], one.state is State.RUNNING)
        restarts.add_metric([one.name], one.restarts)
        failures.add_metric([one.name], readings.failures.get(one.name, 0))
        if one.breaker is not None:
            _add_breaker(breaker, one.name, one.breaker)
    yield from (running, restarts, failures, breaker)


def _queues(readings: Readings) -> Iterator[Metric]:
    def gauge(name: str, text: str) -> Gauge:
        return _gauge(f"queue_{name}", text, ["queue"])

    depth = gauge("depth", "Items that wait.")
    capacity = gauge("capacity", "Items that may wait.")
    in_hand = gauge("in_hand", "Items with a worker.")
    blocked = gauge("blocked_producers", "Producers that wait for room.")
    paused = gauge("paused", "Whether workers get nothing from it for now.")
    oldest = Gauge(
        "trio_services_queue_oldest",
        "How long the item at the head has been waiting.",
        labels=["queue"],
        unit="seconds",
    )
    offered = _counter("queue_offered", "Items that were put, or dropped instead.", ["queue"])
    dropped = _counter("queue_dropped", "Items given up because it was full.", ["queue"])
    retries = _counter("queue_retries", "Further attempts at items.", ["queue"])
    items = _counter("queue_items", "What became of items.", ["queue", "outcome"])
    for name, books in readings.queues.items():
        depth.add_metric([name], books.depth)
        capacity.add_metric([name], books.capacity)
        in_hand.add_metric([name], books.in_hand)
        blocked.add_metric([name], books.blocked)
        paused.add_metric([name], books.paused)
        oldest.add_metric([name], books.oldest)
        # `accepted` goes back by one when an item is dropped for a newer one; a counter must not.
        offered.add_metric([name], books.accepted + books.dropped)
        dropped.add_metric([name], books.dropped)
        retries.add_metric([name], books.retried)
        for outcome, count in _outcomes(books):
            items.add_metric([name, outcome], count)
    yield from (depth, capacity, in_hand, blocked, paused, oldest, offered, dropped, retries, items)


def _outcomes(books: QueueStatistics) -> Iterator[tuple[str, int]]:
    yield "done", books.done
    yield "discarded", books.discarded
    yield "dead", books.dead
    yield "returned", books.returned
    yield "left", books.left


def _pools(pools: Iterable[tuple[str, PoolStatistics]]) -> Iterator[Metric]:
    labels = ["service", "queue"]
    count = _gauge("workers", "How many workers there are to be.", labels)
    busy = _gauge("workers_busy", "How many workers have a job in hand.", labels)
    breaker = _breaker("handler_breaker", "What the breaker around a handler lets through.")
    durations = _histogram("job_duration", "How long attempts at jobs took.", labels)
    for name, pool in pools:
        count.add_metric([name, pool.queue], pool.count)
        busy.add_metric([name, pool.queue], pool.busy)
        if pool.breaker is not None:
            _add_breaker(breaker, name, pool.breaker)
        _add(durations, [name, pool.queue], pool.durations)
    yield from (count, busy, breaker, durations)


def _schedules(schedules: Iterable[tuple[str, ScheduleStatistics]], now: float) -> Iterator[Metric]:
    labels = ["service"]
    calls = _counter("schedule_calls", "What became of calls.", [*labels, "outcome"])
    running = _gauge("schedule_running", "Calls that are being made.", labels)
    due = Gauge(
        "trio_services_schedule_due_in",
        "Until the next call is due.",
        labels=labels,
        unit="seconds",
    )
    durations = _histogram("schedule_duration", "How long attempts at calls took.", labels)
    lateness = _histogram("schedule_lateness", "How late calls began.", labels)
    for name, schedule in schedules:
        calls.add_metric([name, "done"], schedule.done)
        calls.add_metric([name, "discarded"], schedule.discarded)
        calls.add_metric([name, "dead"], schedule.dead)
        calls.add_metric([name, "skipped"], schedule.skipped)
        running.add_metric([name], schedule.running)
        if schedule.next is not None:
            due.add_metric([name], schedule.next - now)
        _add(durations, [name], schedule.durations)
        _add(lateness, [name], schedule.lateness)
    yield from (calls, running, due, durations, lateness)


# -- families, all of which have the same prefix ---------------------------------------------


def _gauge(name: str, text: str, labels: list[str]) -> Gauge:
    return Gauge(f"trio_services_{name}", text, labels=labels)


def _counter(name: str, text: str, labels: list[str]) -> Counter:
    return Counter(f"trio_services_{name}", text, labels=labels)


def _histogram(name: str, text: str, labels: list[str]) -> Histogram:
    return Histogram(f"trio_services_{name}", text, labels=labels, unit="seconds")


def _breaker(name: str, text: str) -> StateSet:
    return StateSet(f"trio_services_{name}", text, labels=["service"])


def _add(family: Histogram, labels: list[str], statistics: HistogramStatistics) -> None:
    counts = accumulate(statistics.counts)
    family.add_metric(labels, list(zip(_BOUNDS, counts, strict=True)), statistics.total)


def _add_breaker(family: StateSet, name: str, state: BreakerState) -> None:
    family.add_metric([name], {one.value: one is state for one in BreakerState})
