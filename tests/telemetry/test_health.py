from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from trio_services import Backoff, Child, Health, Service, Supervisor, open_supervisor
from trio_services.lifecycle import HealthStatus
from trio_services.telemetry import HealthChecks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus


@attrs.define
class Patient(Service):
    says: Callable[[], Awaitable[Health]]
    asked: int = 0

    async def run(self) -> None:
        await trio.sleep_forever()

    async def check(self) -> Health:
        self.asked += 1
        return await self.says()


def saying(health: Health, after: float = 0.0) -> Patient:
    async def says() -> Health:
        await trio.sleep(after)
        return health

    return Patient(says)


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("disk full")


async def test_each_service_is_told_in_its_own_words(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [
            Child(saying(Health.healthy()), name="db"),
            Child(saying(Health.degraded("slow")), name="mail"),
            Supervisor("reports", [Child(saying(Health.unhealthy("")), name="daily")]),
        ],
    )
    async with open_supervisor(tree) as running:
        report = await HealthChecks(running).report()
    assert [(one.name, one.health) for one in report.services] == [
        ("app/db", Health.healthy()),
        ("app/mail", Health.degraded("app/mail: slow")),
        ("app/reports/daily", Health.unhealthy("app/reports/daily is unhealthy")),
    ]
    assert report.status is UNHEALTHY
    assert report.unhealthy == ["app/reports/daily is unhealthy"]
    assert report.degraded == ["app/mail: slow"]


@pytest.mark.parametrize("where", ["service", "supervisor"])
async def test_what_is_not_critical_only_degrades(where: str, autojump_clock: MockClock) -> None:
    ill = Child(saying(Health.unhealthy("ill")), name="ill", critical=where != "service")
    inner = Child(Supervisor("inner", [ill]), critical=where != "supervisor")
    async with open_supervisor(Supervisor("app", [inner])) as running:
        report = await HealthChecks(running).report()
    assert (report.status, report.degraded) == (DEGRADED, ["app/inner/ill: ill"])
    assert [one.health.status for one in report.services] == [DEGRADED]


async def test_stale_service_is_unhealthy_until_it_makes_progress(
    autojump_clock: MockClock,
) -> None:
    tree = Supervisor("app", [Child(trio.sleep_forever, name="slow", stale_after=10.0)])
    async with open_supervisor(tree) as running:
        checks = HealthChecks(running)
        before = await checks.report()
        await trio.sleep(11)
        stale = await checks.report()
        running.life.children["slow"].progress()
        await trio.sleep(2)
        after = await checks.report()
    assert [one.status for one in (before, stale, after)] == [HEALTHY, UNHEALTHY, HEALTHY]
    assert stale.unhealthy == ["app/slow has made no progress for 11 s"]


async def test_service_that_waits_for_its_restart_is_told_with_the_reason(
    autojump_clock: MockClock,
) -> None:
    flaky = Child(fail, name="flaky", backoff=Backoff(initial=100, jitter=0), critical=False)
    async with open_supervisor(Supervisor("app", [flaky])) as running:
        await trio.sleep(1)
        report = await HealthChecks(running).report()
    assert report.degraded == ["app/flaky is backing off after OSError"]


async def test_service_that_does_not_answer_in_time_is_unhealthy(
    autojump_clock: MockClock,
) -> None:
    tree = Supervisor("app", [Child(saying(Health.healthy(), after=99), name="db")])
    async with open_supervisor(tree) as running:
        began = trio.current_time()
        report = await HealthChecks(running, within=3.0).report()
        assert trio.current_time() - began == 3.0
    assert report.unhealthy == ["app/db did not say within 3 s how it is"]


async def test_service_whose_answer_fails_is_unhealthy_and_its_message_is_not_told(
    autojump_clock: MockClock,
) -> None:
    async def says() -> Health:
        await trio.lowlevel.checkpoint()
        raise LookupError("password=hunter2")

    async with open_supervisor(Supervisor("app", [Child(Patient(says), name="db")])) as running:
        report = await HealthChecks(running).report()
    assert report.unhealthy == ["app/db failed to say how it is: LookupError"]


async def test_all_who_want_to_know_are_told_by_one_asking(autojump_clock: MockClock) -> None:
    patient = saying(Health.healthy(), after=0.5)
    async with open_supervisor(Supervisor("app", [Child(patient, name="db")])) as running:
        checks = HealthChecks(running, fresh_for=1.0)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(checks.report)
        await trio.sleep(0.9)
        await checks.report()
        assert patient.asked == 1
        await trio.sleep(0.2)
        await checks.report()
        assert patient.asked == 2


async def test_when_who_asks_is_cancelled_another_asks_instead(autojump_clock: MockClock) -> None:
    patient = saying(Health.degraded("slow"), after=1.0)
    async with open_supervisor(Supervisor("app", [Child(patient, name="db")])) as running:
        checks = HealthChecks(running)

        async def ask_impatiently() -> None:
            with trio.move_on_after(0.5):
                await checks.report()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_impatiently)
            await trio.sleep(0.1)
            report = await checks.report()
    assert (report.status, patient.asked) == (DEGRADED, 2)


async def test_answer_of_a_run_that_has_ended_meanwhile_does_not_count(
    autojump_clock: MockClock,
) -> None:
    patient = saying(Health.unhealthy("dying"), after=1.0)
    async with open_supervisor(Supervisor("app", [Child(patient, name="db")])) as running:
        checks = HealthChecks(running)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checks.report)
            await trio.sleep(0.5)
            await running.restart("db")
        report = await checks.report()
    assert report.status is HEALTHY
