"""What is told of events, and when; in seconds that a test gives."""

from __future__ import annotations

import math

from hypothesis import given, strategies as st

from trio_services.errors import Failure
from trio_services.lifecycle import events
from trio_services.telemetry._digest import (
    CAPACITY,
    GATHER,
    REPEAT_AFTER,
    STEADY,
    Alert,
    Digest,
)


def failed(service: str = "app/a", message: str = "password=s3cret") -> events.ServiceFailed:
    failure = Failure(service, "ValueError", message, "a.py:3 in run", 0.0)
    return events.ServiceFailed(service, failure, ValueError(message), at=0.0)


def ready(service: str = "app/a") -> events.ServiceReady:
    return events.ServiceReady(service, 0.1, at=0.0)


def digest() -> Digest:
    return Digest(["service_failed"])


def told(one: Digest, now: float) -> list[str]:
    return [str(alert) for alert in one.take(now)]


def test_trouble_is_told_after_a_moment_and_without_its_message() -> None:
    one = digest()

    one.hear(failed(), 10.0)

    assert one.due == 10.0 + GATHER
    assert one.take(10.0) == []
    assert told(one, one.due) == ["app/a: failed: ValueError at a.py:3 in run"]
    assert one.due == math.inf


def test_what_is_not_asked_for_is_not_told() -> None:
    one = Digest(["job_dead"])
    assert not one.hear(failed(), 0.0)
    assert not one.hear(ready(), 0.0)
    assert one.due == math.inf


def test_same_trouble_is_counted_and_told_once() -> None:
    one = digest()
    for _ in range(5):
        one.hear(failed(), 0.0)
    assert told(one, 1.0) == ["app/a: failed: ValueError at a.py:3 in run (5 times)"]


def test_trouble_that_goes_on_is_told_again_after_a_long_time() -> None:
    one = digest()
    one.hear(failed(), 0.0)
    one.take(1.0)

    one.hear(failed(), 2.0)
    one.hear(failed(), 3.0)

    assert one.due == 1.0 + REPEAT_AFTER
    assert [alert.count for alert in one.take(one.due)] == [2]


def test_recovery_is_told_when_it_has_lasted() -> None:
    one = digest()
    one.hear(failed(), 0.0)
    one.take(1.0)

    one.hear(ready(), 5.0)

    assert one.due == 5.0 + STEADY
    assert told(one, one.due) == ["recovered: app/a: failed: ValueError at a.py:3 in run"]
    one.hear(failed(), 20.0)
    assert one.due == 20.0 + GATHER  # as if it were the first time


def test_trouble_that_comes_and_goes_is_not_told_at_each_turn() -> None:
    one = digest()
    one.hear(failed(), 0.0)
    one.take(1.0)

    for turn in range(100):
        one.hear(ready(), 2.0 + turn)
        one.hear(failed(), 2.5 + turn)
        assert one.take(2.9 + turn) == []

    assert one.due == 1.0 + REPEAT_AFTER


def test_trouble_that_is_over_before_it_is_told_is_one_alert() -> None:
    one = digest()
    one.hear(failed(), 0.0)
    one.hear(ready(), 0.5)
    assert one.take(1.0) == [
        Alert("service_failed", "app/a", "failed: ValueError at a.py:3 in run", 1, recovered=True)
    ]
    assert one.due == math.inf


def test_recovery_of_what_was_never_told_is_none() -> None:
    one = digest()
    assert not one.hear(ready(), 0.0)
    assert one.due == math.inf


def test_each_kind_of_trouble_ends_with_its_own_event() -> None:
    one = Digest(["breaker_opened", "restart_limit", "stop_overdue", "job_dead"])
    one.hear(events.BreakerOpened("app/a", 1, 30.0, at=0.0), 0.0)
    one.hear(events.BreakerGaveUp("app/d", 3, at=0.0), 0.0)
    one.hear(events.SupervisorGaveUp("app/b", "too many restarts", (), at=0.0), 0.0)
    one.hear(events.ServiceOverdue("app/c", 1.0, "stack", at=0.0), 0.0)
    assert told(one, 1.0) == [
        "app/a: breaker open for 30 s",
        "app/d: breaker gave up: stays down",
        "app/b: gave up: too many restarts",
        "app/c: still there 1 s past the deadline of its stop",
    ]

    one.hear(ready("app/a"), 2.0)
    assert one.due == math.inf
    one.hear(events.BreakerClosed("app/a", at=0.0), 2.0)
    one.hear(ready("app/b"), 2.0)
    one.hear(events.ServiceStopped("app/c", 1.0, at=0.0), 2.0)

    assert [(a.kind, a.recovered) for a in one.take(2.0 + STEADY)] == [
        ("breaker_opened", True),
        ("restart_limit", True),
        ("stop_overdue", True),
    ]


def test_storm_is_bounded_and_what_has_no_room_is_counted() -> None:
    one = digest()
    for number in range(3 * CAPACITY):
        one.hear(failed(f"app/{number}"), 0.0)

    assert len(one) == CAPACITY
    assert one.dropped == 2 * CAPACITY
    assert len(one.take(1.0)) == CAPACITY


def test_what_was_told_is_forgotten_when_there_is_too_much_of_it() -> None:
    one = digest()
    for number in range(CAPACITY + 1):
        one.hear(failed(f"app/{number}"), 0.0)
        one.take(1.0)
    assert not one.hear(ready("app/0"), 2.0)
    assert one.hear(ready("app/1"), 2.0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["failed", "ready", "take"]),
        st.sampled_from(["app/a", "app/b"]),
        st.floats(0, 400),
    ),
    max_size=60,
)


@given(steps)
def test_every_trouble_is_told_and_so_is_the_end_of_it(
    script: list[tuple[str, str, float]],
) -> None:
    one = digest()
    now, heard, count = 0.0, 0, 0
    open_: dict[str, bool] = {}  # as somebody believes who reads all alerts
    well = {"app/a": True, "app/b": True}
    last: dict[str, float] = {}

    def read() -> int:
        alerts = one.take(now)
        for alert in alerts:
            if alert.count and not open_.get(alert.service):
                last[alert.service] = now
            elif alert.count and not alert.recovered:
                assert now - last[alert.service] >= REPEAT_AFTER
                last[alert.service] = now
            open_[alert.service] = not alert.recovered
        return sum(alert.count for alert in alerts)

    for step, service, pause in script:
        now += pause
        if step == "take":
            count += read()
        else:
            before = one.due
            news = one.hear(failed(service) if step == "failed" else ready(service), now)
            assert news or one.due == before
            heard += step == "failed"
            well[service] = step == "ready"
    now += 2 * REPEAT_AFTER
    count += read()

    assert count == heard
    assert one.due == math.inf
    assert {name for name, is_open in open_.items() if is_open} == {
        name for name, is_well in well.items() if not is_well
    }
