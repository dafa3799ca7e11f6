from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from prometheus_client import Metric
from prometheus_client.openmetrics import parser

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Discard,
    Limit,
    Retry,
    Schedule,
    Supervisor,
    Workers,
    WorkQueue,
)
from trio_services.host import Host, open_host
from trio_services.lifecycle import State, events
from trio_services.queues import BOUNDS, PoolStatistics
from trio_services.supervision import Change
from trio_services.telemetry import Meter, Readings, as_openmetrics

if TYPE_CHECKING:
    from trio.testing import MockClock


PARSE: Callable[[str], Iterable[Metric]] = vars(parser)["text_string_to_metric_families"]


@attrs.frozen
class Scrape:
    """What a strict reader of OpenMetrics makes of some readings."""

    text: str
    values: dict[tuple[str, tuple[str, ...]], float]
    labels: set[str]

    def __call__(self, name: str, *labels: str) -> float:
        """The value of a sample, by its labels in alphabetical order of their names."""
        return self.values[f"trio_services_{name}", labels]


def scrape(readings: Readings) -> Scrape:
    text = as_openmetrics(readings).decode()
    values: dict[tuple[str, tuple[str, ...]], float] = {}
    labels: set[str] = set()
    for family in PARSE(text):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))
            assert key not in values
            values[key] = sample.value
            labels.update(sample.labels.values())
    return Scrape(text, values, labels)


async def fail() -> None:
    await trio.sleep(1)
    raise OSError("no space left, password=hunter2")


async def test_services_are_told_by_state_with_restarts_and_failures(
    autojump_clock: MockClock,
) -> None:
    flaky = Child(fail, name="flaky", backoff=Backoff(initial=1, factor=1, jitter=0))
    down = Child(fail, name="down", critical=False, restart="never")
    async with open_host(Supervisor("app", [trio.sleep_forever, flaky, down])) as host:
        before = scrape(host.readings())
        await trio.sleep(3.5)  # failed at 1 and 3, started again at 2
        after = scrape(host.readings())
    assert [before("services", state) for state in ("running", "failed")] == [3, 0]
    assert [after("services", state) for state in ("running", "backing_off", "failed")] == [1, 1, 1]
    assert sum(after("services", state) for state in State) == 3
    assert (after("service_restarts_total", "app/flaky"), before("health", "healthy")) == (1, 1)
    failures = [after("service_failures_total", f"app/{one}") for one in ("flaky", "down")]
    assert failures == [2, 1]
    assert [after("service_running", name) for name in ("app", "app/flaky")] == [1, 0]
    assert after("health", "unhealthy") == 1


async def test_failures_of_a_service_that_was_removed_are_forgotten(
    autojump_clock: MockClock,
) -> None:
    down = Child(fail, name="down", critical=False, restart="never")
    async with open_host(Supervisor("app", [trio.sleep_forever, down])) as host:
        await trio.sleep(2)
        assert host.readings().failures == {"app/down": 1}
        await host.tree.remove("down")
        assert host.readings().failures == {}


async def test_breaker_is_told_by_its_state(autojump_clock: MockClock) -> None:
    breaker = Breaker(1, reset_after=60, jitter=0)
    child = Child(fail, name="forecast", critical=False, breaker=breaker)
    async with open_host(Supervisor("app", [trio.sleep_forever, child])) as host:
        closed = scrape(host.readings())
        await trio.sleep(2)
        opened = scrape(host.readings())
    states = ("closed", "open", "half_open")
    name = "service_breaker"
    assert [closed(name, "app/forecast", state) for state in states] == [1, 0, 0]
    assert [opened(name, "app/forecast", state) for state in states] == [0, 1, 0]


async def test_books_of_a_queue_are_told_exactly(autojump_clock: MockClock) -> None:
    async def handle(item: int) -> None:
        await trio.sleep(0.02)
        if item == 1:
            raise Discard("not wanted")
        if item == 2:
            raise ValueError("broken")
        if item == 5:
            await trio.sleep_forever()

    queue = WorkQueue[int]("letters", capacity=4)
    retry = Retry(attempts=2, on=ValueError, backoff=Backoff(initial=0, jitter=0))
    workers = Child(Workers(queue, handle, retry=retry), name="answer", stop_within=0)

    async def put() -> None:
        for number in range(11):
            await queue.put(number)
        await trio.sleep_forever()

    async with open_host(Supervisor("app", [Child(put, name="put"), workers])) as host:
        await trio.sleep(10)
        readings = host.readings()
        told = scrape(readings)
    gauges = ("depth", "capacity", "in_hand")
    assert [told(f"queue_{name}", "letters") for name in gauges] == [4, 4, 1]
    assert (told("queue_blocked_producers", "letters"), told("queue_paused", "letters")) == (1, 0)
    assert told("queue_oldest_seconds", "letters") > 9
    assert told("queue_offered_total", "letters") == 10
    assert told("queue_retries_total", "letters") == 1
    outcomes = ("done", "discarded", "dead", "returned", "left")
    assert [told("queue_items_total", o, "letters") for o in outcomes] == [3, 1, 1, 0, 0]
    worker = ("letters", "app/answer")
    assert (told("workers", *worker), told("workers_busy", *worker)) == (1, 1)
    pool = next(s.work for s in readings.services.walk() if s.name == "app/answer")
    assert isinstance(pool, PoolStatistics)
    name = "job_duration_seconds"
    assert told(f"{name}_count", "letters", "app/answer") == pool.durations.count == 6
    assert told(f"{name}_sum", "letters", "app/answer") == pool.durations.total
    buckets = [told(f"{name}_bucket", str(b), "letters", "app/answer") for b in BOUNDS]
    assert buckets == [0] * 4 + [6] * (len(BOUNDS) - 4)


async def test_what_was_offered_never_goes_back(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("news", capacity=2, when_full="drop_oldest")
    meter = Meter()
    async with open_host(Supervisor("app", [trio.sleep_forever])) as host:
        services = host.tree.statistics()
        offered: list[float] = []
        for number in range(5):
            queue.put_nowait(number)
            offered.append(scrape(meter.read(services, [queue]))("queue_offered_total", "news"))
    assert offered == [1, 2, 3, 4, 5]
    assert scrape(meter.read(services, [queue]))("queue_dropped_total", "news") == 3


async def test_two_queues_of_one_name_do_not_spoil_the_scrape(autojump_clock: MockClock) -> None:
    first, second = WorkQueue[int]("news"), WorkQueue[int]("news")
    first.put_nowait(1)
    async with open_host(Supervisor("app", [trio.sleep_forever])) as host:
        told = scrape(Meter().read(host.tree.statistics(), [first, second]))
    assert told("queue_depth", "news") == 1


async def test_calls_of_a_schedule_are_told_with_how_late_they_were(
    autojump_clock: MockClock,
) -> None:
    async def call() -> None:
        await trio.sleep(2)

    child = Child(Schedule(call, every=10.0), name="report")
    async with open_host(Supervisor("app", [child])) as host:
        await trio.sleep(25)
        told = scrape(host.readings())
    assert told("schedule_calls_total", "done", "app/report") == 3
    assert told("schedule_due_in_seconds", "app/report") == pytest.approx(5)
    assert told("schedule_running", "app/report") == 0
    assert told("schedule_duration_seconds_sum", "app/report") == pytest.approx(6)
    assert told("schedule_lateness_seconds_bucket", "0.001", "app/report") == 3


async def test_each_scrape_is_proper_whatever_the_application_does(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("letters")

    async def handle(item: int) -> None:
        await trio.sleep(0.5)
        raise OSError("unreachable")

    tree = Supervisor(
        "app",
        [
            Child(Workers(queue, handle, breaker=Breaker(2, reset_after=3)), name="answer"),
            Child(fail, name="flaky", critical=False, breaker=Breaker(2, reset_after=3)),
            Supervisor("inner", [Child(Schedule(fail, every=2.0), name="tick")]),
        ],
        max_restarts=Limit(100, per=60.0),
    )
    seen: set[str] = set()
    host = Host(tree, 60)

    def watch(event: events.Event) -> None:
        seen.update(scrape(host.readings()).labels)

    with host.bus.listening(watch):
        async with host.open(open_ended=True):
            for number in range(20):
                queue.put_nowait(number)
            await trio.sleep(30)
    watch(events.SupervisorStopping("app"))
    names = {"app", "app/answer", "app/flaky", "app/inner", "app/inner/tick", "letters"}
    constants = {*State, *map(str, BOUNDS), "+Inf", "closed", "open", "half_open", "healthy"}
    constants |= {"degraded", "unhealthy", "done", "discarded", "dead", "returned", "left"}
    assert seen == names | constants | {"skipped"}


async def test_queues_are_those_of_the_tree_as_it_was_changed(autojump_clock: MockClock) -> None:
    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()

    def workers(name: str, *feeds: WorkQueue[int]) -> Child:
        return Child(Workers(WorkQueue[int](name), handle, feeds=feeds), name=name)

    inner = Supervisor("inner", [workers("deep")])
    tree = Supervisor("app", [workers("old", WorkQueue("fed")), inner, trio.sleep_forever])
    async with open_host(tree) as host:
        assert set(host.readings().queues) == {"old", "fed", "deep"}
        await host.change(Change(start=[workers("new")], remove=["old"]))
        assert set(host.readings().queues) == {"new", "deep"}


async def test_jobs_that_are_done_publish_nothing_to_count(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("letters", capacity=1000)
    heard: list[events.Event] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()

    async with open_host(Supervisor("app", [Child(Workers(queue, handle), name="w")])) as host:
        await trio.testing.wait_all_tasks_blocked()
        with host.bus.listening(heard.append):
            for number in range(1000):
                queue.put_nowait(number)
            await trio.sleep(1)
        assert scrape(host.readings())("queue_items_total", "done", "letters") == 1000
    assert heard == []


async def test_event_loop_that_was_blocked_is_told_by_its_lag() -> None:
    async with open_host(Supervisor("app", [trio.sleep_forever])) as host:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.measure_lag)
            await trio.sleep(0.01)
            time.sleep(0.6)  # noqa: ASYNC251 -- on purpose
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        told = scrape(host.readings())
    assert told("event_loop_lag_seconds_sum") > 0.3
    assert told("event_loop_lag_seconds_bucket", "0.25") == 0
    assert told("event_loop_lag_seconds_count") == 1


def test_only_who_is_scraped_pays_for_the_import_of_prometheus_client() -> None:
    program = """
import sys, trio_services.admin
from trio_services.host import open_host
print("prometheus_client" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")
