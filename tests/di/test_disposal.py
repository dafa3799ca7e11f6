"""What was entered for a scope is left at its end, whatever happened, and in good order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from inspect import Parameter, Signature
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trio_services.di import HOST, JOB, SERVICE, Container, Scope
from trio_services.errors import DisposalTimeout, InjectionError
from trio_services.lifecycle import set_aside_cancellations


class Boom(Exception):
    """What fails here."""


class Outer:
    pass


class Middle:
    pass


class Inner:
    pass


@attrs.define
class Story:
    """Three objects, each made with the one before; what each of them saw at its end."""

    fails: tuple[str, ...] = ()
    lasts: tuple[str, ...] = ()
    swallows: tuple[str, ...] = ()
    log: list[str] = attrs.Factory(list[str])

    @contextmanager
    def watch(self, name: str) -> Generator[None]:
        try:
            yield
        except BaseException as error:  # noqa: ASYNC103
            self.log.append(f"{name}: {type(error).__name__}")
            if name in self.fails:
                raise Boom(name) from None  # noqa: ASYNC104
            if name not in self.swallows:
                raise
        else:
            self.log.append(f"{name}: fine")
            if name in self.fails:
                raise Boom(name)

    async def last(self, name: str) -> None:
        await trio.sleep(1000 if name in self.lasts else 1)

    def container(self, scope: Scope = JOB) -> Container:
        @asynccontextmanager
        async def outer() -> AsyncGenerator[Outer]:
            with self.watch("outer"):
                try:
                    yield Outer()
                finally:
                    await self.last("outer")  # noqa: ASYNC102

        @contextmanager
        def middle(outer: Outer) -> Generator[Middle]:
            with self.watch("middle"):
                yield Middle()

        @asynccontextmanager
        async def inner(middle: Middle) -> AsyncGenerator[Inner]:
            with self.watch("inner"):
                try:
                    yield Inner()
                finally:
                    await self.last("inner")  # noqa: ASYNC102

        container = Container(dispose_within=5.0)
        for factory in (outer, middle, inner):
            container.provide(factory, scope=scope)
        return container


Ending = Literal["return", "raise", "cancel"]


async def work(inner: Inner, ending: Ending) -> None:
    if ending == "raise":
        raise Boom("work")
    await trio.sleep(10 if ending == "cancel" else 1)


async def run(
    container: Container, scope: Scope, ending: Ending = "return", within: float = 2
) -> trio.CancelScope:
    """Do the work in a scope; the cancel scope around it that may have cancelled it."""
    async with AsyncExitStack() as stack:
        cancel_scope = stack.enter_context(trio.move_on_after(within))  # noqa: ASYNC122
        opened: Any = await stack.enter_async_context(container.open())
        if scope >= SERVICE:
            opened = await stack.enter_async_context(opened.open_service())
        if scope is JOB:
            opened = await stack.enter_async_context(opened.open_job())
        await work(await opened.get(Inner), ending)
    return cancel_scope


every_scope = pytest.mark.parametrize("scope", list(Scope))


@every_scope
async def test_last_made_is_left_first(scope: Scope, autojump_clock: MockClock) -> None:
    story = Story()
    await run(story.container(scope), scope)
    assert story.log == ["inner: fine", "middle: fine", "outer: fine"]
    assert trio.current_time() == pytest.approx(3)


@every_scope
async def test_error_of_the_work_is_raised_inside_of_all_and_comes_out(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story()
    with pytest.raises(Boom, match="work"):
        await run(story.container(scope), scope, "raise")
    assert story.log == ["inner: Boom", "middle: Boom", "outer: Boom"]


@every_scope
async def test_cancellation_is_raised_inside_of_all_and_disposal_is_shielded_from_it(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story()
    cancel_scope = await run(story.container(scope), scope, "cancel")
    assert cancel_scope.cancelled_caught
    assert story.log == ["inner: Cancelled", "middle: Cancelled", "outer: Cancelled"]
    assert trio.current_time() == pytest.approx(4)


@every_scope
@pytest.mark.parametrize("fails", ["inner", "middle", "outer"])
async def test_failed_disposal_is_raised_and_seen_by_those_further_out(
    scope: Scope, fails: str, autojump_clock: MockClock
) -> None:
    story = Story(fails=(fails,))
    with pytest.raises(Boom, match=fails):
        await run(story.container(scope), scope)
    names = ["inner", "middle", "outer"]
    place = names.index(fails)
    assert story.log == [
        f"{name}: {'fine' if names.index(name) <= place else 'Boom'}" for name in names
    ]


@every_scope
async def test_all_are_left_though_each_of_them_fails_and_no_error_is_lost(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story(fails=("inner", "middle", "outer"))
    with pytest.raises((Boom, ExceptionGroup)) as caught:  # noqa: ASYNC401
        await run(story.container(scope), scope, "raise")
    assert story.log == ["inner: Boom", "middle: Boom", "outer: Boom"]
    told: list[str] = []
    todo: list[Any] = [caught.value]
    while todo:
        error = todo.pop()
        if isinstance(error, ExceptionGroup):
            todo += error.exceptions  # pyright: ignore[reportUnknownMemberType]
        elif error is not None:
            told.append(str(error))
            todo.append(error.__context__)
    assert set(told) == {"outer", "middle", "inner", "work"}


@pytest.mark.parametrize("scope", [SERVICE, JOB])
async def test_error_by_which_a_provider_tells_another_takes_its_place(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story(fails=("middle",))
    with pytest.raises(Boom, match="middle") as caught:
        await run(story.container(scope), scope, "raise")
    assert isinstance(caught.value.__context__, Boom)
    assert str(caught.value.__context__) == "work"


@every_scope
async def test_disposal_that_takes_too_long_is_cut_off_and_named(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story(lasts=("inner",))
    with pytest.raises(DisposalTimeout) as caught:
        await run(story.container(scope), scope)
    assert story.log == ["inner: Cancelled", "middle: fine", "outer: Cancelled"]
    assert trio.current_time() == pytest.approx(6)
    assert caught.value.provided == ("Inner", "Outer")
    assert str(caught.value) == (
        "the disposal of Inner, Outer was cut off: it was not done within 5 s; make it faster, or "
        "raise the container's dispose_within"
    )


@every_scope
async def test_disposal_that_takes_too_long_does_not_hide_the_error_of_the_work(
    scope: Scope, autojump_clock: MockClock
) -> None:
    story = Story(lasts=("outer",))
    with pytest.raises((DisposalTimeout, ExceptionGroup)) as caught:  # noqa: ASYNC401
        await run(story.container(scope), scope, "raise")
    if isinstance(caught.value, ExceptionGroup):
        assert caught.group_contains(Boom, match="work")
        assert caught.group_contains(DisposalTimeout)
    else:
        assert isinstance(caught.value.__context__, Boom)


@every_scope
async def test_no_provider_swallows_an_error(scope: Scope, autojump_clock: MockClock) -> None:
    story = Story(swallows=("inner", "outer"))
    with pytest.raises(Boom, match="work"):
        await run(story.container(scope), scope, "raise")
    assert story.log == ["inner: Boom", "middle: Boom", "outer: Boom"]


@every_scope
async def test_no_provider_swallows_a_cancellation(scope: Scope, autojump_clock: MockClock) -> None:
    story = Story(swallows=("inner", "middle", "outer"))
    cancel_scope = await run(story.container(scope), scope, "cancel")
    assert cancel_scope.cancelled_caught
    assert story.log == ["inner: Cancelled", "middle: Cancelled", "outer: Cancelled"]


@pytest.mark.parametrize("scope", [SERVICE, JOB])
@pytest.mark.parametrize("fails", ["inner", "middle", "outer"])
async def test_cancellation_comes_out_beside_a_failed_disposal(
    scope: Scope, fails: str, autojump_clock: MockClock
) -> None:
    story = Story(fails=(fails,))
    came_out: list[BaseException] = []

    async def cancelled_work() -> None:
        with trio.move_on_after(2):
            try:
                await run(story.container(scope), scope, "cancel", within=100)
            except BaseException as error:
                came_out.append(error)
                raise

    with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401
        await cancelled_work()
    assert [str(error) for error in caught.value.exceptions] == [fails]
    cancelled, rest = set_aside_cancellations(came_out[0])
    assert cancelled is not None
    assert str(rest) == fails


async def test_host_scope_tells_a_failed_disposal_also_when_cancelled(
    autojump_clock: MockClock,
) -> None:
    story = Story(fails=("middle",))
    with pytest.raises(Boom, match="middle"):
        await run(story.container(HOST), HOST, "cancel")


async def test_error_of_a_disposal_has_the_one_before_as_its_context(
    autojump_clock: MockClock,
) -> None:
    plan = Plan((frozenset(), frozenset({0})), (JOB, JOB), frozenset({0, 1}), (1,), "return")
    container = plan.container([Outer, Inner])
    with pytest.raises(Boom, match="0") as caught:
        await run(container, JOB)
    assert str(caught.value.__context__) == "1"


async def test_failure_to_make_an_object_disposes_of_what_it_needed(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    @asynccontextmanager
    async def broken(middle: Middle) -> AsyncGenerator[Inner]:
        await trio.lowlevel.checkpoint()
        raise Boom("broken")
        yield Inner()

    broken.__annotations__["middle"] = Middle
    container = story.container(JOB).override(Inner, broken)
    with pytest.raises(Boom, match="broken"):
        await run(container, JOB)
    assert story.log == ["middle: Boom", "outer: Boom"]


@every_scope
@pytest.mark.parametrize("steps", range(25))
async def test_whenever_it_is_cancelled_all_that_was_entered_is_left(
    scope: Scope, steps: int, autojump_clock: MockClock
) -> None:
    plan = Plan(
        (frozenset(), frozenset({0}), frozenset({1})), (scope,) * 3, frozenset(), (2,), "return"
    )

    async def cancel_later(around: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        around.cancel()

    with trio.CancelScope() as around:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_later, around)
            await run(plan.container([Outer, Middle, Inner]), scope, within=100)
    assert around.cancelled_caught
    assert [number for number, _ in plan.left] == plan.entered[::-1]
    assert all(saw_error for _, saw_error in plan.left)


# -- providers with cancel scopes and nurseries of their own -------------------------------


async def test_time_out_of_a_provider_applies_to_the_work(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def limited() -> AsyncGenerator[Inner]:
        with trio.fail_after(3):  # noqa: ASYNC100
            yield Inner()

    container = Story().container(JOB).override(Inner, limited)
    async with container.open() as host, host.open_service() as service:
        with pytest.raises(trio.TooSlowError):  # noqa: PT012
            async with service.open_job() as job:
                await job.get(Inner)
                await trio.sleep(10)
    assert trio.current_time() == pytest.approx(3)


async def test_host_object_that_ends_by_itself_without_an_error_ends_the_work_with_one(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def limited() -> AsyncGenerator[Inner]:
        with trio.move_on_after(3):  # noqa: ASYNC100
            yield Inner()

    container = Container()
    container.provide(limited)
    with pytest.raises(InjectionError, match="has ended by itself, without an error"):
        await run(container, HOST, "cancel", within=100)
    assert trio.current_time() == pytest.approx(3)


async def test_work_that_a_provider_cuts_short_without_an_error_has_failed(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def limited() -> AsyncGenerator[Inner]:
        with trio.move_on_after(3):  # noqa: ASYNC100
            yield Inner()

    container = Story().container(JOB).override(Inner, limited)
    came_out: list[BaseException] = []
    async with container.open() as host, host.open_service() as service:
        try:
            async with service.open_job() as job:
                await job.get(Inner)
                await trio.sleep(10)
        except BaseException as error:  # noqa: ASYNC103
            came_out.append(error)
    assert [type(error) for error in came_out] == [InjectionError]
    assert str(came_out[0]) == "what was provided has cancelled the work, without an error"


def with_nursery(scope: Scope, log: list[str], fails_after: float = 1000) -> Container:
    @asynccontextmanager
    async def connection() -> AsyncGenerator[Inner]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            try:
                yield Inner()
            finally:
                log.append("closing")
                nursery.cancel_scope.cancel()

    async def beat() -> None:
        await trio.sleep(fails_after)
        raise Boom("connection lost")

    container = Container()
    container.provide(connection, scope=scope)
    return container


@every_scope
@pytest.mark.parametrize("ending", ["return", "raise", "cancel"])
async def test_provider_may_hold_a_nursery(
    scope: Scope, ending: Ending, autojump_clock: MockClock
) -> None:
    log: list[str] = []
    container = with_nursery(scope, log)
    if ending == "raise":
        with pytest.raises((Boom, ExceptionGroup)) as caught:  # noqa: ASYNC401
            await run(container, scope, ending)
        error = caught.value
        assert isinstance(error.exceptions[0] if isinstance(error, ExceptionGroup) else error, Boom)
    else:
        assert (await run(container, scope, ending)).cancelled_caught == (ending == "cancel")
    assert log == ["closing"]


@every_scope
async def test_failure_in_a_nursery_of_a_provider_ends_the_work(
    scope: Scope, autojump_clock: MockClock
) -> None:
    log: list[str] = []
    with pytest.raises((Boom, ExceptionGroup)) as caught:  # noqa: ASYNC401
        await run(with_nursery(scope, log, fails_after=1), scope, "cancel")
    error = caught.value
    cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
    assert str(cause) == "connection lost"
    assert trio.current_time() == pytest.approx(1)
    assert log == ["closing"]


async def test_object_that_fails_is_disposed_of_after_those_who_use_it_have_gone(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    with pytest.raises(Boom, match="connection lost"):  # noqa: PT012
        async with with_nursery(HOST, log, fails_after=1).open() as host:
            await host.get(Inner)
            try:
                await trio.sleep(100)
            finally:
                with trio.move_on_after(10, shield=True):
                    await trio.sleep(3)
                    log.append("user gone")
    assert log == ["user gone", "closing"]


async def test_host_objects_outlast_a_cancellation_until_those_who_use_them_have_gone(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    with trio.move_on_after(2):
        async with story.container(HOST).open() as host:
            await host.get(Inner)
            try:
                await trio.sleep(100)
            finally:
                with trio.move_on_after(10, shield=True):
                    await trio.sleep(3)
                    story.log.append("user gone")
    assert story.log[0] == "user gone"
    assert len(story.log) == 4


async def test_host_objects_are_still_made_for_those_who_are_going(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    got: list[Inner] = []
    with trio.move_on_after(2):
        async with story.container(HOST).open() as host:
            try:
                await trio.sleep(100)
            finally:
                with trio.move_on_after(10, shield=True):
                    got.append(await host.get(Inner))
    assert len(got) == 1
    assert len(story.log) == 3


async def test_host_scope_that_has_failed_makes_nothing_any_more(
    autojump_clock: MockClock,
) -> None:
    container = with_nursery(HOST, [], fails_after=1)
    container.provide(Middle)
    told: list[str] = []
    with pytest.raises(Boom, match="connection lost"):  # noqa: PT012
        async with container.open() as host:
            await host.get(Inner)
            try:
                await trio.sleep(100)
            finally:
                with trio.move_on_after(10, shield=True):  # noqa: ASYNC912
                    try:
                        await host.get(Middle)
                    except InjectionError as error:
                        told.append(str(error))
    assert told == ["no Middle any more: the HOST scope is closed"]


async def test_exit_that_was_asked_for_comes_out_of_a_factory(autojump_clock: MockClock) -> None:
    def leave() -> Inner:
        raise SystemExit(3)

    container = Story().container(HOST).override(Inner, leave)
    with pytest.raises(SystemExit):
        async with container.open() as host:
            await host.get(Inner)


# -- order, over random graphs -------------------------------------------------------------


class Manager:
    """A context manager of a class of its own, whose ways are given."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number = number
        self.plan = plan

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        self.plan.entered.append(self.number)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.plan.left.append((self.number, error is not None))
        await trio.sleep(0.1)  # noqa: ASYNC102
        if self.number in self.plan.fails:
            raise Boom(str(self.number))


@attrs.define
class Plan:
    """Some objects, each with the numbers of those before that it is made with."""

    needs: tuple[frozenset[int], ...]
    scopes: tuple[Scope, ...]
    fails: frozenset[int]
    asked: tuple[int, ...]
    ending: Ending
    entered: list[int] = attrs.Factory(list[int])
    left: list[tuple[int, bool]] = attrs.Factory(list[tuple[int, bool]])

    def container(self, types: list[type[object]]) -> Container:
        container = Container()
        for number, needs in enumerate(self.needs):
            factory = self.factory(number, needs, types)
            container.provide(factory, scope=self.scopes[number])
        return container

    def factory(self, number: int, needs: frozenset[int], types: list[type[object]]) -> Any:
        def make(**others: object) -> Manager:
            return Manager(number, self)

        asked = {f"other{other}": types[other] for other in sorted(needs)}
        manager: Any = AbstractAsyncContextManager
        make.__annotations__ = {**asked, "return": manager[types[number]]}
        vars(make)["__signature__"] = Signature(
            [Parameter(name, Parameter.KEYWORD_ONLY) for name in asked]
        )
        return make


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 8))
    needs: list[frozenset[int]] = []
    scopes: list[Scope] = []
    for number in range(count):
        before = st.sets(st.integers(0, max(number - 1, 0)), max_size=3 if number else 0)
        needs.append(frozenset(draw(before)))
        longest = max([scopes[other] for other in needs[-1]], default=HOST)
        scopes.append(draw(st.sampled_from([one for one in Scope if one >= longest])))
    return Plan(
        needs=tuple(needs),
        scopes=tuple(scopes),
        fails=draw(st.frozensets(st.integers(0, count - 1), max_size=2)),
        asked=tuple(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))),
        ending=draw(st.sampled_from(["return", "raise", "cancel"])),
    )


@given(plans())
@settings(max_examples=150)
def test_whatever_needs_what_all_that_was_entered_is_left_in_reverse_order(plan: Plan) -> None:
    types: list[type[object]] = [type(f"Object{number}", (), {}) for number in range(8)]

    async def main() -> None:
        with trio.move_on_after(5):
            async with (
                plan.container(types).open() as host,
                host.open_service() as service,
                service.open_job() as job,
            ):
                for number in plan.asked:
                    await job.get(types[number])
                if plan.ending == "raise":
                    raise Boom("work")
                await trio.sleep(10 if plan.ending == "cancel" else 1)

    failed = False
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except* Boom:
        failed = True
    wanted = set(plan.asked)
    for number in reversed(range(len(plan.needs))):
        if number in wanted:
            wanted |= plan.needs[number]
    assert sorted(plan.entered) == sorted(wanted)
    for number in plan.entered:
        assert all(
            plan.entered.index(other) < plan.entered.index(number) for other in plan.needs[number]
        )
    order = sorted(plan.entered, key=lambda one: (plan.scopes[one], plan.entered.index(one)))
    assert [number for number, _ in plan.left] == order[::-1]
    assert failed == (plan.ending == "raise" or bool(plan.fails & wanted))
    seen = plan.ending != "return"
    for number, saw_error in plan.left:
        assert saw_error == seen
        seen = seen or number in plan.fails
