"""What is wrong with providers is told before anything is made."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Generic, NewType, TypeVar

import attrs
import pytest
import trio

from trio_services import PlanError
from trio_services.di import HOST, JOB, SERVICE, Container

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Pool:
    pass


class Transaction:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool


class Store:
    pass


class FileStore(Store):
    pass


async def send_invoice(order: int, pool: Pool, transaction: Transaction) -> None:
    pass


def problems(container: Container, *services: Callable[..., object], **jobs: object) -> list[str]:
    """The lines of the error that a check ends with."""
    with pytest.raises(PlanError) as caught:
        container.check(*services, **jobs)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def test_missing_provider_is_told_with_who_asks_and_what_to_add() -> None:
    container = Container()
    container.provide(Transaction, scope=JOB)
    assert problems(container, jobs=[(send_invoice, 1)]) == [
        "no provider for Pool (asked by Transaction); add container.provide(Pool, …)",
        "no provider for Pool (asked by send_invoice); add container.provide(Pool, …)",
    ]


def test_missing_provider_of_a_base_class_hints_at_the_one_of_a_subclass() -> None:
    def archive(store: Store) -> None:
        pass

    archive.__annotations__["store"] = Store
    container = Container()
    container.provide(FileStore)
    assert problems(container, archive) == [
        "no provider for Store (asked by archive); add container.provide(Store, …) or, since "
        "FileStore is one, annotate what provides that as returning Store"
    ]


def test_captive_dependency_is_told() -> None:
    class Cache:
        def __init__(self, transaction: Transaction) -> None:
            pass

    Cache.__init__.__annotations__["transaction"] = Transaction
    container = Container()
    container.provide(Pool)
    container.provide(Transaction, scope=JOB)
    container.provide(Cache)
    assert problems(container) == [
        "Transaction lives for one JOB, and Cache asks for it in a HOST scope; provide Transaction "
        "with scope=HOST, or ask for it where it lives"
    ]


@pytest.mark.parametrize(("scope", "holds"), [(HOST, True), (SERVICE, True), (JOB, False)])
def test_service_may_hold_only_what_lives_as_long_as_itself(scope: int, holds: bool) -> None:
    container = Container()
    container.provide(Pool, scope=[HOST, SERVICE, JOB][scope])
    if holds:
        container.check(Transaction)
    else:
        assert problems(container, Transaction) == [
            "Pool lives for one JOB, and Transaction asks for it in a SERVICE scope; provide Pool "
            "with scope=SERVICE, or ask for it where it lives"
        ]


class Egg:
    def __init__(self, hen: Hen) -> None:
        pass


class Hen:
    def __init__(self, egg: Egg, pool: Pool) -> None:
        pass


class Farm:
    def __init__(self, hen: Hen) -> None:
        pass


def test_cycle_is_told_once_with_the_way_around() -> None:
    container = Container()
    for provided in (Farm, Egg, Hen, Pool):
        container.provide(provided)
    assert problems(container) == [
        "each of these asks for the next: Hen → Egg → Hen; let one of them do without"
    ]


class Selfish:
    def __init__(self, other: Selfish) -> None:
        pass


def test_what_asks_for_itself_is_a_cycle() -> None:
    container = Container()
    container.provide(Selfish)
    assert problems(container) == [
        "each of these asks for the next: Selfish → Selfish; let one of them do without"
    ]


def test_all_problems_are_told_at_once() -> None:
    container = Container()
    container.provide(Egg)
    container.provide(Hen)
    container.provide(Selfish)
    told = problems(container, Transaction, jobs=[(send_invoice, 1)])
    assert len(told) == 6
    assert [line.split(" (")[0] for line in told if line.startswith("no provider")] == [
        "no provider for Pool",
        "no provider for Pool",
        "no provider for Pool",
        "no provider for Transaction",
    ]


def test_opening_checks_the_providers_before_anything_is_made() -> None:
    container = Container()
    container.provide(Transaction, scope=JOB)
    with pytest.raises(PlanError, match="no provider for Pool"):
        container.open()


def test_parameter_with_a_default_may_have_no_provider() -> None:
    def fetch(pool: Pool | None = None, times: int = 3, note: str = "") -> None:
        pass

    Container().check(fetch)


def test_parameter_without_a_type_is_told() -> None:
    def fetch(url: str) -> None:
        pass

    del fetch.__annotations__["url"]
    assert problems(Container(), fetch) == [
        "parameter 'url' of fetch has no type to provide it by; annotate it, or give it a default"
    ]


def test_positional_only_parameter_is_told() -> None:
    def fetch(pool: Pool, /) -> None:
        pass

    assert problems(Container(), fetch) == [
        "parameter 'pool' of fetch is positional-only, and is passed by name; take the '/' away"
    ]


def test_annotation_that_does_not_resolve_is_told() -> None:
    def convert(rate: Decimal) -> None:
        pass

    assert problems(Container(), convert) == [
        "the annotations of convert do not resolve: name 'Decimal' is not defined"
    ]


def test_annotation_that_does_not_resolve_does_not_matter_where_all_has_a_default() -> None:
    def convert(rate: Decimal | None = None) -> None:
        pass

    Container().check(convert)


def test_arguments_that_are_given_anyway_need_no_provider() -> None:
    container = Container()
    container.provide(Pool)
    container.provide(Transaction, scope=JOB)
    container.check(jobs=[(send_invoice, 1)])
    assert problems(container, jobs=[(send_invoice, 0)]) == [
        "no provider for int (asked by send_invoice); add container.provide(int, …)"
    ]


def test_arguments_bound_by_a_partial_need_no_provider() -> None:
    container = Container()
    container.check(partial(send_invoice, 1, pool=Pool(), transaction=Transaction(Pool())))
    container.provide(Pool)
    container.check(partial(Transaction))
    assert problems(container, partial(send_invoice, 1)) == [
        "no provider for Transaction (asked by send_invoice); add container.provide(Transaction, …)"
    ]


async def test_arguments_bound_by_a_partial_stay_as_they_are() -> None:
    container = Container()
    container.provide(Pool)
    async with container.open() as host:
        made = await host.make(partial(Transaction, pool=(mine := Pool())))
    assert made.pool is mine


def test_problem_that_several_have_is_told_once() -> None:
    assert len(problems(Container(), Transaction, Transaction)) == 1


async def echo(stream: trio.SocketStream) -> None:
    pass


async def poll(pool: Pool, *, task_status: trio.TaskStatus[None]) -> None:
    pass


def test_task_status_is_the_supervisors_to_give() -> None:
    container = Container()
    container.provide(Pool)
    container.check(poll, partial(trio.serve_tcp, echo, 9000))


def test_callable_without_a_signature_asks_for_nothing() -> None:
    Container().check(type)


# -- what can be provided ------------------------------------------------------------------


@attrs.frozen
class Reader:
    _pool: Pool
    retries: int = 3


@dataclasses.dataclass
class Writer:
    pool: Pool


@attrs.define(init=False)
class Custom:
    name: str

    def __init__(self, pool: Pool) -> None:
        self.name = "custom"


class Repo(Generic[T]):
    pass


Replica = NewType("Replica", Pool)


def make_pool() -> Pool:
    return Pool()


async def connect() -> Pool:
    await trio.lowlevel.checkpoint()
    return Pool()


@asynccontextmanager  # pyright: ignore[reportDeprecated]
async def opened() -> AsyncIterator[Pool]:
    yield Pool()


@contextmanager  # pyright: ignore[reportDeprecated]
def entered() -> Iterator[Pool]:
    yield Pool()


def manager() -> AbstractAsyncContextManager[Pool]:
    return opened()


class Opener:
    async def __call__(self) -> Pool:
        return await connect()

    def open(self) -> Pool:
        return Pool()


def replica(pool: Pool) -> Replica:
    return Replica(pool)


def numbers(pool: Pool) -> Repo[int]:
    return Repo()


@pytest.mark.parametrize(
    "factory", [Pool, make_pool, connect, opened, entered, manager, Opener().open, partial(connect)]
)
async def test_class_or_function_provides_what_it_makes_returns_or_yields(
    factory: Callable[..., object],
) -> None:
    container = Container()
    container.provide(factory)
    async with container.open() as host:
        assert type(await host.get(Pool)) is Pool


@pytest.mark.parametrize("provided", [Reader, Writer, Custom])
async def test_fields_of_a_class_are_what_it_asks_for(provided: type[object]) -> None:
    container = Container()
    container.provide(provided)
    assert problems(container) == [
        f"no provider for Pool (asked by {provided.__name__}); add container.provide(Pool, …)"
    ]
    container.provide(Pool)
    async with container.open() as host:
        assert isinstance(await host.get(provided), provided)


async def test_types_that_differ_only_by_name_or_parameter_are_different() -> None:
    async def ask(pool: Pool, other: Replica, repo: Repo[int]) -> tuple[object, ...]:  # noqa: ASYNC124
        return pool, other, repo

    ask.__annotations__.update(pool=Pool, other=Replica, repo=Repo[int])
    container = Container()
    container.provide(Pool)
    container.provide(replica)
    container.provide(numbers)
    async with container.open() as host:
        pool, other, repo = await host.call(ask)
    assert other is pool
    assert isinstance(repo, Repo)


async def bare() -> AsyncIterator[Pool]:  # noqa: ASYNC124, ASYNC900
    yield Pool()


def silent() -> Pool:
    return Pool()


del silent.__annotations__["return"]


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (bare, "bare is a generator; decorate it with @asynccontextmanager"),
        (silent, "silent does not say what it provides; annotate what it returns"),
        (nothing, "nothing does not say what it provides; annotate what it returns"),
        (7, "7 is neither a class nor a function; use container.provide_value"),
    ],
)
def test_what_cannot_be_a_provider_is_refused_where_it_is_written(
    factory: Callable[..., object], told: str
) -> None:
    with pytest.raises(PlanError) as caught:
        Container().provide(factory)
    assert str(caught.value) == told


def test_type_is_provided_once() -> None:
    container = Container()
    container.provide(Pool)
    twice: list[Callable[[], None]] = [
        lambda: container.provide(connect),
        lambda: container.provide_value(Pool()),
    ]
    for again in twice:
        with pytest.raises(PlanError) as caught:
            again()
        told = "Pool is provided twice; leave one out, or override it in tests"
        assert str(caught.value) == told


async def test_value_is_provided_as_it_is() -> None:
    container = Container()
    container.provide_value(pool := Pool())
    container.provide_value(store := FileStore(), Store)
    async with container.open() as host:
        assert await host.get(Pool) is pool
        assert await host.get(Store) is store


# -- overriding ----------------------------------------------------------------------------


class FakePool(Pool):
    pass


@pytest.mark.parametrize("provided", [Pool, connect])
@pytest.mark.parametrize("replacement", [FakePool, FakePool(), partial(FakePool)])
async def test_override_takes_the_place_of_a_provider_for_all_who_ask(
    provided: object, replacement: object
) -> None:
    container = Container()
    container.provide(connect)
    container.provide(Transaction)
    overridden = container.override(provided, replacement)
    async with overridden.open() as host:
        assert isinstance((await host.get(Transaction)).pool, FakePool)
    async with container.open() as host:
        assert not isinstance((await host.get(Transaction)).pool, FakePool)


async def test_override_by_a_function_needs_no_annotation_and_keeps_the_scope() -> None:
    container = Container(dispose_within=7.0)
    container.provide(connect)
    container.provide(Transaction, scope=JOB)
    overridden = container.override(Transaction, lambda: "fake")
    assert overridden.dispose_within == 7.0
    async with (
        overridden.open() as host,
        host.open_service() as service,
        service.open_job() as job,
    ):
        assert str(await job.get(Transaction)) == "fake"
        with pytest.raises(PlanError, match="lives for one JOB"):
            await service.get(Transaction)


def test_override_of_what_is_not_provided_is_refused() -> None:
    with pytest.raises(PlanError, match="nothing provides Pool that could be overridden"):
        Container().override(Pool, FakePool)
