"""Objects are made when they are asked for, once for each scope, and by the right task."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_services import PlanError
from trio_services.di import HOST, JOB, SERVICE, Container, HostScope, Scope
from trio_services.errors import InjectionError

T = TypeVar("T")


class Pool:
    pass


class Cache:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool


@attrs.frozen(eq=False)
class Transaction:
    cache: Cache
    pool: Pool


class Options:
    pass


def everything() -> Container:
    container = Container()
    container.provide(Pool)
    container.provide(Cache, scope=SERVICE)
    container.provide(Transaction, scope=JOB)
    return container


async def one_each(pool: Pool, cache: Cache, transaction: Transaction) -> Transaction:
    await trio.lowlevel.checkpoint()
    assert transaction.pool is cache.pool is pool
    assert transaction.cache is cache
    return transaction


async def test_object_is_one_for_its_scope_and_another_for_the_next() -> None:
    made: list[Transaction] = []
    async with everything().open() as host:
        for _ in range(2):
            async with host.open_service() as service:
                for _ in range(2):
                    async with service.open_job() as job:
                        made += [await job.call(one_each), await job.call(one_each)]
    assert [made.index(one) for one in made] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert len({one.cache for one in made}) == 2
    assert len({one.pool for one in made}) == 1


async def test_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[str] = []

    def pool() -> Pool:
        made.append("pool")
        return Pool()

    container = everything().override(Pool, pool)
    async with container.open() as host, host.open_service() as service:
        await service.bind(trio.sleep, 1)
        await host.make(Options)
        assert made == []
        await service.get(Cache)
        assert made == ["pool"]


@pytest.mark.parametrize("askers", [2, 5, 50])
async def test_object_that_many_ask_for_at_once_is_made_once(
    askers: int, autojump_clock: MockClock
) -> None:
    made: list[Pool] = []
    got: list[Cache] = []

    async def connect() -> Pool:
        await trio.sleep(1)
        made.append(Pool())
        return made[-1]

    async def ask() -> None:
        async with host.open_service() as service:
            got.append(await service.get(Cache))

    async with everything().override(Pool, connect).open() as host, trio.open_nursery() as nursery:
        for _ in range(askers):
            nursery.start_soon(ask)
    assert len(made) == 1
    assert {cache.pool for cache in got} == set(made)
    assert len(got) == askers


async def test_object_is_made_though_the_first_who_asked_was_cancelled(
    autojump_clock: MockClock,
) -> None:
    made: list[Pool] = []

    async def connect() -> Pool:
        await trio.sleep(2)
        made.append(Pool())
        return made[-1]

    async with everything().override(Pool, connect).open() as host:
        with trio.move_on_after(1):
            await host.get(Pool)
        assert trio.current_time() == pytest.approx(1)
        assert await host.get(Pool) is made[0]
        assert trio.current_time() == pytest.approx(2)
    assert len(made) == 1


async def test_failure_to_make_an_object_is_raised_where_it_is_asked_for_and_not_kept() -> None:
    attempts: list[int] = []

    async def connect() -> Pool:
        await trio.lowlevel.checkpoint()
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError(f"attempt {len(attempts)}")
        return Pool()

    async with everything().override(Pool, connect).open() as host:
        for number in (1, 2):
            async with host.open_service() as service:
                with pytest.raises(ConnectionError, match=f"attempt {number}"):
                    await service.get(Cache)
        await host.get(Pool)
    assert len(attempts) == 3


async def test_arguments_that_are_given_come_first() -> None:
    def join(first: str, second: int, pool: Pool, *rest: str, sep: str = "-") -> str:
        return f"{first}{sep}{second}{sep}{type(pool).__name__}"

    async def later(first: str, pool: Pool) -> str:
        await trio.lowlevel.checkpoint()
        return f"{first} {type(pool).__name__}"

    async with everything().open() as host:
        assert await host.make(join, "a", 1) == "a-1-Pool"
        assert await host.call(later, "a") == "a Pool"
        assert (await host.fill(join, 2))("b", 2, sep="+") == "b+2+Pool"


async def test_what_asks_for_nothing_is_itself_given_back() -> None:
    async with everything().open() as host, host.open_service() as service:
        assert await host.fill(print) is print
        assert await service.fill(trio.sleep_forever) is trio.sleep_forever
        assert await service.bind(trio.sleep, 1) is trio.sleep


@pytest.mark.parametrize("scope", list(Scope))
async def test_asking_for_what_nobody_provides_is_refused(scope: Scope) -> None:
    async def ask(missing: Options) -> None:
        pass

    ask.__annotations__["missing"] = Options
    told = "no provider for Options (asked by "
    async with (
        everything().open() as host,
        host.open_service() as service,
        service.open_job() as job,
    ):
        opened = (host, service, job)[scope]
        for asking in (opened.get(Options), opened.call(ask), opened.make(ask)):
            with pytest.raises(PlanError) as caught:
                await asking
            assert str(caught.value).startswith(told)


async def test_shorter_lived_object_cannot_be_asked_for_in_a_longer_scope() -> None:
    async with everything().open() as host, host.open_service() as service:
        with pytest.raises(PlanError, match="Cache lives for one SERVICE"):
            await host.get(Cache)
        with pytest.raises(PlanError, match="Transaction lives for one JOB"):
            await service.call(one_each)


# -- what a scope is opened with -----------------------------------------------------------


class Client:
    def __init__(self, options: Options) -> None:
        self.options = options


@pytest.mark.parametrize("scope", list(Scope))
async def test_scope_gives_what_it_was_opened_with(scope: Scope) -> None:
    container = Container()
    container.expect(Options, scope=scope)
    container.provide(Client, scope=scope)
    container.check(jobs=[(Client, 0)])
    values = [None, None, None, options := Options()]
    given: list[dict[type[object], object] | None] = [None, None, None]
    given[scope] = {Options: values[3]}
    async with (
        container.open(given[HOST]) as host,
        host.open_service(given[SERVICE]) as service,
        service.open_job(given[JOB]) as job,
    ):
        assert (await job.get(Client)).options is options


async def test_scope_that_was_not_opened_with_it_cannot_give_it() -> None:
    container = Container()
    container.expect(Options, scope=SERVICE)
    container.provide(Client, scope=SERVICE)
    async with container.open() as host, host.open_service() as service:
        with pytest.raises(InjectionError) as caught:
            await service.get(Client)
    assert str(caught.value) == "no Options was given when the SERVICE scope was opened"


async def test_open_container_does_not_know_what_is_provided_later() -> None:
    container = Container()
    async with container.open() as host:
        container.provide(Pool)
        with pytest.raises(PlanError, match="no provider for Pool"):
            await host.get(Pool)


# -- jobs ----------------------------------------------------------------------------------


async def test_each_call_of_a_bound_function_has_a_scope_of_its_own() -> None:
    seen: list[tuple[int, Transaction]] = []

    async def handle(number: int, transaction: Transaction, pool: Pool) -> str:
        await trio.lowlevel.checkpoint()
        assert transaction.pool is pool
        seen.append((number, transaction))
        return f"done {number}"

    async with everything().open() as host, host.open_service() as service:
        bound = await service.bind(handle, 1)
        assert [await bound(number) for number in range(3)] == ["done 0", "done 1", "done 2"]
        # Workers are other tasks than the one that made them ready.
        async with trio.open_nursery() as nursery:
            for number in (3, 4):
                nursery.start_soon(bound, number)
    assert sorted(number for number, _ in seen) == [0, 1, 2, 3, 4]
    assert len({transaction for _, transaction in seen}) == 5
    assert len({transaction.cache for _, transaction in seen}) == 1


async def test_what_jobs_share_is_made_before_any_of_them_comes() -> None:
    made: list[str] = []

    class Shared(Cache):
        def __init__(self, pool: Pool) -> None:
            super().__init__(pool)
            made.append("cache")

    Shared.__init__.__annotations__["pool"] = Pool
    container = everything().override(Cache, Shared)
    async with container.open() as host, host.open_service() as service:
        bound = await service.bind(one_each, 0)
        assert made == ["cache"]
        await bound()
        await bound()
        assert made == ["cache"]


async def test_function_that_asks_only_for_what_lives_longer_needs_no_scope() -> None:
    async def handle(number: int, pool: Pool, cache: Cache) -> int:
        await trio.lowlevel.checkpoint()
        assert cache.pool is pool
        return number

    async with everything().open() as host, host.open_service() as service:
        bound = await service.bind(handle, 1)
        assert getattr(bound, "func", None) is handle
        assert await bound(7) == 7


async def test_binding_what_cannot_be_provided_is_refused() -> None:
    async def handle(options: Options) -> None:
        pass

    handle.__annotations__["options"] = Options
    async with everything().open() as host, host.open_service() as service:
        with pytest.raises(PlanError, match="no provider for Options"):
            await service.bind(handle, 0)


@pytest.mark.parametrize("ending", ["return", "raise", "cancel"])
async def test_nothing_of_a_job_is_kept(ending: str, autojump_clock: MockClock) -> None:
    kept: list[weakref.ref[Transaction]] = []

    async def handle(transaction: Transaction) -> None:
        kept.append(weakref.ref(transaction))
        if ending == "raise":
            raise ValueError
        await trio.sleep(2 if ending == "cancel" else 0)

    async with everything().open() as host, host.open_service() as service:
        bound = await service.bind(handle, 0)
        gc.disable()
        try:
            with trio.move_on_after(1), suppress(ValueError):
                await bound()
            await trio.lowlevel.checkpoint()  # until then Trio itself keeps its last cancellation
            assert kept[0]() is None
        finally:
            gc.enable()


class Refused(Exception):
    """What fails here."""


async def test_nothing_of_a_failure_to_make_an_object_is_kept() -> None:
    kept: list[weakref.ref[Refused]] = []

    async def connect() -> Pool:
        await trio.lowlevel.checkpoint()
        error = Refused()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async with everything().override(Pool, connect).open() as host:
        gc.disable()
        try:
            with suppress(Refused):
                await host.get(Pool)
            await wait_all_tasks_blocked()
            assert kept[0]() is None
        finally:
            gc.enable()


# -- which task makes them -----------------------------------------------------------------


async def in_another_task(function: Callable[..., Awaitable[T]], *args: object) -> T:
    results: list[T] = []

    async def run() -> None:
        results.append(await function(*args))

    async with trio.open_nursery() as nursery:  # noqa: ASYNC112
        nursery.start_soon(run)
    return results[0]


async def test_objects_of_a_service_or_job_are_asked_for_in_its_own_task() -> None:
    async with (
        everything().open() as host,
        host.open_service() as service,
        service.open_job() as job,
    ):
        for asked, get in ((Cache, service.get), (Transaction, job.get)):
            with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401
                await in_another_task(get, asked)
            assert caught.group_contains(InjectionError, match=f"{asked.__name__} was asked for by")
        await job.get(Transaction)
        # What is there already, anybody may have.
        assert await in_another_task(service.get, Cache) is await service.get(Cache)
        assert await in_another_task(service.get, Pool) is await host.get(Pool)


class Shop:
    def __init__(self, cache: Cache) -> None:
        self.cache = cache


async def test_what_was_made_along_with_another_object_is_there_for_all() -> None:
    container = everything()
    container.provide(Shop, scope=SERVICE)
    async with container.open() as host, host.open_service() as service:
        shop = await service.get(Shop)
        assert await in_another_task(service.get, Cache) is shop.cache


async def test_factory_may_ask_the_host_scope_itself() -> None:
    asked: list[HostScope] = []

    async def cache() -> Cache:
        return Cache(await asked[0].get(Pool))

    container = Container()
    container.provide(Pool)
    container.provide(cache)
    async with container.open() as host:
        asked.append(host)
        assert (await host.get(Cache)).pool is await host.get(Pool)


async def test_host_scope_gives_nothing_after_its_end() -> None:
    async with everything().open() as host:
        pass
    with pytest.raises(InjectionError, match="no Pool any more: the HOST scope is closed"):
        await host.get(Pool)


async def test_object_that_is_still_being_made_at_the_end_gets_the_time_for_disposal(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Pool]:
        await trio.sleep(3)
        log.append("connected")
        yield Pool()
        log.append("closed")

    async with everything().override(Pool, connect).open() as host:
        with trio.move_on_after(1):
            await host.get(Pool)
    assert trio.current_time() == pytest.approx(3)
    assert log == ["connected", "closed"]


async def test_object_that_would_never_be_made_does_not_hold_up_the_end(
    autojump_clock: MockClock,
) -> None:
    async def connect() -> Pool:
        await trio.sleep_forever()
        raise AssertionError

    async with everything().override(Pool, connect).open() as host:
        with trio.move_on_after(1):
            await host.get(Pool)
    assert trio.current_time() == pytest.approx(6)


@pytest.mark.parametrize("ask", ["get", "make", "call", "fill", "bind"])
async def test_asking_is_a_checkpoint(ask: str) -> None:
    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    async with everything().open() as host, host.open_service() as service:
        asking: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: service.get(Pool),
            "make": lambda: service.make(Pool),
            "call": lambda: service.call(nothing),
            "fill": lambda: service.fill(print),
            "bind": lambda: service.bind(nothing, 0),
        }
        with trio.CancelScope() as scope:
            scope.cancel()
            await asking[ask]()
        assert scope.cancelled_caught


async def test_opening_a_scope_in_a_cancelled_task_is_cancelled() -> None:
    entered: list[str] = []
    async with everything().open() as host:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with host.open_service():
                entered.append("service")
        assert scope.cancelled_caught
    assert entered == []
    await wait_all_tasks_blocked()
