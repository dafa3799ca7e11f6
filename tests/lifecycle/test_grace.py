from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.lifecycle import Bus, Lifetime, current_service, events, graceful
from trio_services.supervision import Child, Supervisor, open_supervisor

from .running import Diary, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


# -- what a stop does to a region, and to what is outside of one ------------------------


async def test_unit_of_work_in_hand_is_finished_after_a_stop(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
            diary.note("finished")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(5, "finished")]


async def test_code_outside_of_a_region_is_cancelled_at_once(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            pass
        try:
            await trio.sleep(5)
            diary.note("finished")
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(2, "left")]


async def test_after_its_unit_of_work_a_stopped_service_is_cancelled_at_its_first_checkpoint(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
        diary.note("outside again")
        await trio.lowlevel.checkpoint()
        diary.note("passed a checkpoint")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(5, "outside again")]


async def test_unit_of_work_is_cut_at_the_deadline(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with graceful():
                await trio.sleep(50)
                diary.note("finished")
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(12, "left")]


@pytest.mark.parametrize(
    "between", [nullcontext, trio.CancelScope, partial(trio.move_on_after, 99)]
)
async def test_code_after_a_cut_region_does_not_run(
    between: Callable[[], nullcontext[None] | trio.CancelScope], autojump_clock: MockClock
) -> None:
    diary = Diary()

    async def service() -> None:
        with between():
            with graceful():
                await trio.sleep(50)
            diary.note("after the region")
        diary.note("after what is around it")

    async with running(service) as life:
        life.request_stop(10)
    assert trio.current_time() == 10
    assert diary.lines == []


async def test_region_that_is_not_entered_after_a_stop_starts_no_new_unit_of_work(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        while True:
            with graceful():
                await trio.sleep(3)
                diary.note("unit")
            await trio.lowlevel.checkpoint()

    async with running(service) as life:
        await trio.sleep(4)
        life.request_stop(10)
    assert diary.lines == [(3, "unit"), (6, "unit")]


async def test_error_in_a_region_comes_out_of_it_during_a_stop(autojump_clock: MockClock) -> None:
    caught: list[str] = []

    async def service() -> None:
        try:
            with graceful():
                await trio.sleep(5)
                raise ValueError("broken")
        except ValueError as error:
            caught.append(str(error))

    async with running(service) as life:
        life.request_stop(10)
    assert caught == ["broken"]


async def test_error_raised_by_a_cut_unit_of_work_is_not_lost(autojump_clock: MockClock) -> None:
    async def service() -> None:
        with graceful():
            try:
                await trio.sleep(50)
            finally:
                raise ValueError("broken clean-up")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="broken clean-up")):
        async with running(service) as life:
            life.request_stop(10)
    assert trio.current_time() == 10


async def test_region_that_has_ended_is_forgotten(autojump_clock: MockClock) -> None:
    async def service() -> None:
        for _ in range(3):
            with graceful(), graceful():
                await trio.sleep(1)
        try:
            with graceful():
                raise ValueError
        except ValueError:
            pass
        await trio.sleep(1)

    async with running(service) as life:
        assert len(life.regions) == 2
        await trio.sleep(3.5)
        assert len(life.regions) == 0


async def test_region_belongs_to_the_service_that_enters_it_wherever_it_was_made(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    region = graceful()

    async def service() -> None:
        with region:
            await trio.sleep(5)
            diary.note("finished")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(5, "finished")]


# -- nested regions ---------------------------------------------------------------------


async def test_inner_region_does_not_end_the_protection_of_the_outer(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            with graceful():
                await trio.sleep(3)
                diary.note("inner")
            await trio.sleep(3)
            diary.note("outer")
        await trio.lowlevel.checkpoint()
        diary.note("outside")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(3, "inner"), (6, "outer")]


async def test_nested_regions_are_cut_together_at_the_one_deadline(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with graceful():
                try:
                    with graceful():
                        await trio.sleep(50)
                    diary.note("between")
                finally:
                    diary.note("inner left")
                await trio.sleep(50)
        finally:
            diary.note("outer left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(11, "inner left"), (11, "outer left")]


async def test_region_nested_in_one_that_is_finishing_obeys_the_same_deadline(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with graceful():
                await trio.sleep(5)
                with graceful():
                    diary.note("entered")
                    await trio.sleep(50)
                diary.note("between")
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "entered"), (11, "left")]


# -- child tasks ------------------------------------------------------------------------


async def test_regions_in_child_tasks_finish_though_the_service_itself_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def child(seconds: float) -> None:
        with graceful():
            await trio.sleep(seconds)
            diary.note(f"unit of {seconds} s")
        await trio.sleep(1)
        diary.note("went on")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            for seconds in (3, 5, 50):
                nursery.start_soon(child, seconds)
            try:
                await trio.sleep_forever()
            finally:
                diary.note("body left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(1, "body left"), (3, "unit of 3 s"), (5, "unit of 5 s")]
    assert trio.current_time() == 11


async def test_region_around_a_nursery_protects_the_tasks_in_it(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def child(seconds: float) -> None:
        await trio.sleep(seconds)
        diary.note(f"child of {seconds} s")

    async def service() -> None:
        with graceful():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, 3)
                nursery.start_soon(child, 5)

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(3, "child of 3 s"), (5, "child of 5 s")]


async def test_task_started_in_a_region_after_the_stop_has_the_same_deadline(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def child() -> None:
        try:
            with graceful():
                await trio.sleep(50)
        finally:
            diary.note("child left")

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(child)

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(10, "child left")] * 2


async def test_child_task_may_enter_a_region_after_the_stop_as_the_service_itself_may(
    autojump_clock: MockClock,
) -> None:
    # The stop cancels the body of the nursery, and that in turn the nursery's own scope.
    diary = Diary()

    async def child() -> None:
        with graceful():
            await trio.sleep(5)
            diary.note("first unit")
        with graceful():
            await trio.sleep(3)
            diary.note("second unit")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "first unit"), (8, "second unit")]


async def test_child_task_may_resume_a_region_after_the_stop(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def child() -> None:
        with graceful() as region:
            await trio.sleep(5)
            region.suspend()
            region.resume()
            await trio.sleep(3)
            diary.note("second unit")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(8, "second unit")]


async def test_region_of_a_task_in_somebody_else_s_nursery_is_not_cut_by_the_stop(
    autojump_clock: MockClock,
) -> None:
    # The stop does not cancel that task, so that nothing would catch the end of its region.
    diary = Diary()

    async def elsewhere() -> None:
        with graceful():
            await trio.sleep(50)
            diary.note("finished")
        diary.note("went on")

    async with trio.open_nursery() as application:

        async def service() -> None:
            application.start_soon(elsewhere)
            await trio.sleep_forever()

        async with running(service) as life:
            await trio.sleep(1)
            life.request_stop(10)
    assert diary.lines == [(50, "finished"), (50, "went on")]


# -- regions that are entered after the stop --------------------------------------------


async def test_region_entered_after_the_stop_but_before_the_deadline_may_finish(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
        with graceful():
            await trio.sleep(3)
            diary.note("second unit")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(8, "second unit")]


async def test_region_entered_after_the_stop_is_cut_at_the_same_deadline(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
        try:
            with graceful():
                await trio.sleep(50)
            diary.note("after the region")
        finally:
            diary.note("left")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(10, "left")]


async def outlive_the_deadline() -> None:
    """Be there still when the time for stopping is over, as careless code may."""
    with trio.move_on_after(20, shield=True):
        await trio.sleep_forever()


async def test_region_entered_after_the_deadline_is_cancelled_at_its_first_checkpoint(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        await outlive_the_deadline()
        with graceful():
            diary.note("entered")
            await trio.lowlevel.checkpoint()
            diary.note("passed a checkpoint")
        diary.note("after the region")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(20, "entered")]


async def test_region_entered_after_the_deadline_acquires_nothing(
    autojump_clock: MockClock,
) -> None:
    # Most of Trio's operations look for a cancellation first, do their work, and only then let
    # the scheduler look at the clock: a deadline that has passed is too late for them.
    lock = trio.Lock()

    async def service() -> None:
        await outlive_the_deadline()
        with graceful():
            await lock.acquire()

    async with running(service) as life:
        life.request_stop(10)
    assert not lock.locked()


# -- suspended regions ------------------------------------------------------------------


async def test_suspended_region_is_cancelled_at_once(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with graceful() as region:
                region.suspend()
                await trio.sleep(5)
                diary.note("waited")
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(2, "left")]


async def test_region_that_was_resumed_finishes(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful() as region:
            region.suspend()
            await trio.sleep(1)
            region.resume()
            await trio.sleep(5)
            diary.note("finished")

    async with running(service) as life:
        await trio.sleep(2)
        life.request_stop(10)
    assert diary.lines == [(6, "finished")]


async def test_region_suspended_after_the_stop_is_cancelled_at_its_next_checkpoint(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful() as region:
            await trio.sleep(5)
            region.suspend()
            diary.note("suspended")
            await trio.lowlevel.checkpoint()
            diary.note("passed a checkpoint")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(5, "suspended")]


async def test_region_resumed_after_the_stop_has_the_rest_of_the_time(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful() as region:
            for _ in range(9):
                region.resume()
                await trio.sleep(3)
                diary.note("unit")
                region.suspend()

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(3, "unit"), (6, "unit"), (9, "unit")]
    assert trio.current_time() == 11


async def test_region_that_is_suspended_at_the_stop_and_resumed_before_any_checkpoint_finishes(
    autojump_clock: MockClock,
) -> None:
    # As a worker does that was handed an item in the very moment of the stop.
    diary = Diary()
    event = trio.Event()

    async def service() -> None:
        with graceful() as region:
            region.suspend()
            await event.wait()
            region.resume()
            await trio.sleep(3)
            diary.note("finished")

    async with running(service) as life:
        event.set()
        life.request_stop(10)
    assert diary.lines == [(3, "finished")]


# -- time-outs around a region ----------------------------------------------------------


async def test_before_a_stop_a_time_out_around_a_region_applies(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with trio.fail_after(3), graceful():
                await trio.sleep(50)
        except trio.TooSlowError:
            diary.note("too slow")

    async with running(service):
        pass
    assert diary.lines == [(3, "too slow")]


async def test_before_a_stop_a_cancellation_around_a_region_applies(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with trio.CancelScope() as scope, graceful():
            diary.note("entered")
            scope.cancel()
            await trio.sleep(50)
        diary.note("left")

    async with running(service):
        pass
    assert diary.lines == [(0, "entered"), (0, "left")]


async def test_cancellation_around_a_region_is_not_undone_by_a_stop_right_after_it(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    event = trio.Event()
    scope = trio.CancelScope()

    async def service() -> None:
        with scope, graceful():
            await event.wait()
            diary.note("woken")
            await trio.sleep(5)
            diary.note("finished")

    async with running(service) as life:
        event.set()
        scope.cancel()
        life.request_stop(10)
    assert diary.lines == [(0, "woken")]


async def test_nearer_time_out_around_a_region_applies_during_a_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with trio.fail_after(5), graceful():
                await trio.sleep(50)
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "left")]


async def test_later_time_out_around_a_region_does_not_move_the_deadline(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with trio.fail_after(30), graceful():
                await trio.sleep(50)
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(11, "left")]


async def test_time_out_inside_a_region_applies_during_a_stop(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            with trio.move_on_after(5):
                await trio.sleep(50)
            diary.note("gave up waiting")
            await trio.sleep(1)
            diary.note("finished")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "gave up waiting"), (6, "finished")]


async def test_time_out_between_nested_regions_applies_during_a_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            with trio.move_on_after(5), graceful():
                await trio.sleep(50)
            diary.note("gave up waiting")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "gave up waiting")]


async def test_time_out_between_nested_regions_applies_when_both_came_after_the_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(2)
            with trio.move_on_after(3), graceful():
                await trio.sleep(50)
            diary.note("gave up waiting")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(5, "gave up waiting")]


async def test_time_out_around_a_region_applies_when_it_is_entered_after_the_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with trio.move_on_after(5):
                with graceful():
                    await trio.sleep(2)
                with graceful():
                    diary.note("second unit")
                    await trio.sleep(50)
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(2, "second unit"), (5, "left")]


async def test_time_out_that_was_put_off_while_in_the_region_does_not_cut_it(
    autojump_clock: MockClock,
) -> None:
    # As a client does that renews its time-out with every answer, or a service that becomes
    # ready while it is in a region: its start time-out is over then.
    diary = Diary()

    async def service() -> None:
        with trio.move_on_after(3) as scope, graceful():
            scope.deadline = math.inf
            await trio.sleep(8)
            diary.note("finished")

    async with running(service) as life:
        await trio.sleep(5)
        life.request_stop(10)
    assert diary.lines == [(8, "finished")]


async def test_time_out_that_was_brought_nearer_while_in_the_region_applies_during_a_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with trio.move_on_after(30) as scope, graceful():
                scope.deadline = trio.current_time() + 3
                await trio.sleep(50)
        finally:
            diary.note("left")

    async with running(service) as life:
        await trio.sleep(1)
        life.request_stop(10)
    assert diary.lines == [(3, "left")]


@pytest.mark.parametrize("entered", ["before the stop", "after the stop", "after the deadline"])
async def test_region_that_is_cut_in_shielded_clean_up_is_not_taken_for_done(
    entered: str, autojump_clock: MockClock
) -> None:
    # The shield keeps the cancellation of the service out, so that there is nothing but the
    # region itself to catch its end.
    diary = Diary()

    async def service() -> None:
        with trio.move_on_after(60, shield=True):
            await trio.sleep({"before the stop": 1, "after the stop": 5}.get(entered, 20))
            with graceful():
                await trio.sleep(15)
                diary.note("flushed")
            diary.note("told that it was flushed")

    async with running(service) as life:
        await trio.sleep(3)
        life.request_stop(10)
    assert [text for _, text in diary.lines] in ([], ["flushed", "told that it was flushed"])


# -- stopping twice, and hard -----------------------------------------------------------


@pytest.mark.parametrize(("second", "end"), [(1, 3), (20, 10)])
async def test_asking_for_a_stop_again_only_brings_the_deadline_nearer(
    second: float, end: float, autojump_clock: MockClock
) -> None:
    async def service() -> None:
        with graceful():
            await trio.sleep(50)

    async with running(service) as life:
        life.request_stop(10)
        await trio.sleep(2)
        life.request_stop(second)
        assert life.deadline == end
    assert trio.current_time() == end


async def test_nearer_deadline_applies_to_a_region_that_was_suspended_meanwhile(
    autojump_clock: MockClock,
) -> None:
    event = trio.Event()

    async def service() -> None:
        with graceful() as region:
            region.suspend()
            await event.wait()
            region.resume()
            await trio.sleep(50)

    async with running(service) as life:
        event.set()
        life.request_stop(10)
        life.request_stop(1)
    assert trio.current_time() == 1


async def test_stop_with_no_time_cuts_the_unit_of_work_at_once(autojump_clock: MockClock) -> None:
    async def service() -> None:
        with graceful():
            await trio.sleep(50)

    async with running(service) as life:
        life.request_stop(0)
    assert trio.current_time() == 0


async def test_cancelled_service_is_cut_at_once_in_all_of_its_regions(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def child() -> None:
        with graceful(), graceful():
            await trio.sleep(50)
        diary.note("went on")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            with graceful():
                await trio.sleep(50)
            diary.note("went on")

    async with running(service) as life:
        await trio.sleep(1)
        life.cancel()
        assert life.stop_requested
    assert trio.current_time() == 1
    assert diary.lines == []


async def test_service_that_finishes_its_work_can_still_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        try:
            with graceful():
                await trio.sleep(50)
                diary.note("finished")
            diary.note("after the region")
        finally:
            diary.note("left")

    async with running(service) as life:
        life.request_stop(10)
        await trio.sleep(1)
        life.cancel()
        assert life.deadline == 1
    assert diary.lines == [(1, "left")]


async def test_region_entered_after_a_hard_cancellation_does_no_work(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        await outlive_the_deadline()
        with graceful():
            diary.note("entered")
            await trio.lowlevel.checkpoint()
            diary.note("passed a checkpoint")

    async with running(service) as life:
        life.cancel()
    assert diary.lines == [(20, "entered")]


async def test_region_resumed_when_there_is_no_time_acquires_nothing(
    autojump_clock: MockClock,
) -> None:
    lock = trio.Lock()
    event = trio.Event()

    async def service() -> None:
        with graceful() as region:
            region.suspend()
            await event.wait()
            region.resume()
            await lock.acquire()

    async with running(service) as life:
        event.set()
        life.request_stop(0)
    assert not lock.locked()


# -- around the service -----------------------------------------------------------------


async def test_without_a_service_a_region_does_nothing(autojump_clock: MockClock) -> None:
    with trio.move_on_after(3) as scope, graceful() as region:
        region.suspend()
        region.resume()
        await trio.sleep(50)
    assert scope.cancelled_caught
    assert trio.current_time() == 3


async def test_supervised_unit_of_work_finishes_within_stop_within(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service(seconds: float) -> None:
        with graceful():
            await trio.sleep(seconds)
            diary.note(f"finished {seconds}")

    async def short() -> None:
        await service(5)

    async def long() -> None:
        await service(50)

    tree = Supervisor("app", [Child(short, stop_within=10), Child(long, stop_within=10)])
    async with open_supervisor(tree):
        await trio.sleep(2)
    assert diary.lines == [(5, "finished 5")]
    assert trio.current_time() == 12


@pytest.mark.parametrize("before", [1, 100])
async def test_stop_of_a_nested_supervisor_lets_the_work_in_hand_finish(
    before: float, autojump_clock: MockClock
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(before + 5)
            diary.note("finished")

    async with open_supervisor(Supervisor("app", [Supervisor("part", [service])])):
        await trio.sleep(before)
    assert diary.lines == [(before + 5, "finished")]


async def test_cancellation_of_the_embedding_application_lets_the_work_in_hand_finish(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
            diary.note("finished")
        with graceful():
            await trio.sleep(50)
            diary.note("finished too late")

    with trio.move_on_after(3):
        async with open_supervisor(Supervisor("app", [Child(service, stop_within=10)])):
            await trio.sleep_forever()
    assert diary.lines == [(5, "finished")]
    assert trio.current_time() == 13


# -- the handle of a service ------------------------------------------------------------


async def test_new_service_waits_and_has_done_nothing_yet(autojump_clock: MockClock) -> None:
    await trio.sleep(3)
    life = Lifetime("app/service", Bus())
    assert repr(life) == "<app/service waiting>"
    assert (life.since, life.progressed_at, life.attempt, life.failure) == (3, 3, 0, None)
    assert (life.stop_requested, life.deadline, life.critical) == (False, math.inf, True)
    assert not Lifetime("app/service", Bus(), critical=False).critical


async def test_service_publishes_where_its_tree_does(autojump_clock: MockClock) -> None:
    bus = Bus()
    told: list[events.Event] = []

    async def service() -> None:
        current_service().publish(events.ServiceStarting, 7, at=0)
        await trio.sleep(1)

    with bus.listening(told.append):
        async with open_supervisor(Supervisor("app", [service]), bus=bus):
            await trio.sleep(2)
    assert events.ServiceStarting("app/service", 7, at=0) in told


async def test_handle_is_that_of_the_service_in_all_of_its_tasks(
    autojump_clock: MockClock,
) -> None:
    handles: list[Lifetime] = []

    async def child() -> None:
        handles.append(current_service())
        await trio.lowlevel.checkpoint()

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await child()

    async def other() -> None:
        await child()

    async with open_supervisor(Supervisor("app", [service, other])) as tree:
        await wait_all_tasks_blocked()
    mine = tree.life.children["service"]
    assert mine.name == "app/service"
    assert len(handles) == 3
    assert [handle for handle in handles if handle is mine] == [mine, mine]


async def test_there_is_no_handle_outside_of_a_service(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [trio.sleep_forever])):
        with pytest.raises(RuntimeError, match="does not run in a supervised service"):
            current_service()


async def test_waiting_for_a_stop_ends_when_it_is_requested(autojump_clock: MockClock) -> None:
    diary = Diary()

    async def wait() -> None:
        with graceful():
            await current_service().wait_stop_requested()
            diary.note("told")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)

    async with running(service) as life:
        assert not life.stop_requested
        await trio.sleep(3)
        life.request_stop(10)
        assert life.stop_requested
    assert diary.lines == [(3, "told"), (3, "told")]


async def test_waiting_for_a_stop_that_was_requested_returns_at_once(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        with graceful():
            await trio.sleep(5)
            await current_service().wait_stop_requested()
            diary.note("told")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == [(5, "told")]


async def test_waiting_for_a_stop_outside_of_a_region_is_cancelled_by_it(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()

    async def service() -> None:
        await current_service().wait_stop_requested()
        await trio.lowlevel.checkpoint()
        diary.note("went on")

    async with running(service) as life:
        life.request_stop(10)
    assert diary.lines == []


async def test_progress_is_when_it_was_told_last(autojump_clock: MockClock) -> None:
    async def service() -> None:
        await trio.sleep(3)
        current_service().progress()
        await trio.sleep(3)

    async with running(service) as life:
        assert life.progressed_at == 0
        await trio.sleep(5)
        assert life.progressed_at == 3
