"""Services and jobs of a running application get what they ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_services import (
    Backoff,
    Child,
    PlanError,
    Service,
    StartTimeout,
    Supervisor,
    current_service,
    graceful,
    open_host,
    open_supervisor,
    run,
    serve,
    service,
)
from trio_services.di import HOST, JOB, SERVICE, Container, Scope
from trio_services.lifecycle import JobCall
from trio_services.services import AnyService

AT_ONCE = Backoff(initial=0, cap=0, jitter=0)


class Boom(Exception):
    """What services fail with here."""


class Pool:
    pass


class Client:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool


class Transaction:
    def __init__(self, client: Client) -> None:
        self.client = client


class Missing:
    pass


def _told(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, Exception) else "Cancelled"


@attrs.define
class Story:
    """What was made, used and disposed of, in order."""

    log: list[str] = attrs.Factory(list[str])
    clients: list[Client] = attrs.Factory(list[Client])
    fails: int = 0

    def container(self) -> Container:
        @asynccontextmanager
        async def pool() -> AsyncGenerator[Pool]:
            self.log.append("pool opened")
            yield Pool()
            self.log.append("pool closed")

        @asynccontextmanager
        async def client(pool: Pool) -> AsyncGenerator[Client]:
            if self.fails:
                self.fails -= 1
                raise Boom("no connection")
            self.clients.append(Client(pool))
            try:
                yield self.clients[-1]
            except BaseException as error:
                self.log.append(f"client: {_told(error)}")
                raise
            self.log.append("client: fine")

        @asynccontextmanager
        async def transaction(client: Client) -> AsyncGenerator[Transaction]:
            try:
                yield Transaction(client)
            except BaseException as error:
                self.log.append(f"rollback: {_told(error)}")
                raise
            self.log.append("commit")

        container = Container()
        container.provide_value(self)
        container.provide(pool)
        container.provide(client, scope=SERVICE)
        container.provide(transaction, scope=JOB)
        return container


class Heartbeat(Service):
    """Beat until stopped."""

    def __init__(self, client: Client, story: Story, beats: int = 1) -> None:
        self.client = client
        self.story = story
        self.beats = beats

    async def run(self) -> None:
        self.story.log.append(f"{self.beats} beats")
        await trio.sleep_forever()


class Crasher(Heartbeat):
    """Fail at once, three times."""

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        if len(self.story.clients) <= 3:
            raise Boom("broken")


async def poll(story: Story, client: Client, *, task_status: trio.TaskStatus[None]) -> None:
    story.log.append(f"poll with {type(client).__name__}")
    task_status.started()
    await trio.sleep_forever()


@service
async def greet(name: str, story: Story, client: Client) -> None:
    await trio.lowlevel.checkpoint()
    story.log.append(f"hello {name} with {type(client).__name__}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Heartbeat, "1 beats"),
        (partial(Heartbeat, beats=7), "7 beats"),
        (poll, "poll with Client"),
        (greet("world"), "hello world with Client"),  # type: ignore[call-arg]
    ],
)
async def test_service_gets_what_it_asks_for(
    given: AnyService, said: str, autojump_clock: MockClock
) -> None:
    story = Story()
    async with open_host(Supervisor("app", [given]), container=story.container()):
        await trio.sleep(1)
    end = "fine" if "hello" in said else "Cancelled"
    assert story.log == ["pool opened", said, f"client: {end}", "pool closed"]


async def test_each_restart_gets_a_fresh_scope_and_the_same_host_objects(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    await serve(Supervisor("app", [Child(Crasher, backoff=AT_ONCE)]), container=story.container())
    assert story.log == ["pool opened", *["client: Boom"] * 3, "client: fine", "pool closed"]
    assert len(set(story.clients)) == 4
    assert len({client.pool for client in story.clients}) == 1


async def test_failure_to_make_what_a_service_asks_for_is_a_failure_of_that_service(
    autojump_clock: MockClock,
) -> None:
    story = Story(fails=2)
    tree = Supervisor("app", [Child(Heartbeat, backoff=AT_ONCE)])
    async with open_host(tree, container=story.container()) as host:
        beating = host.tree.statistics().children[0]
        assert beating.restarts == 2
        assert beating.failure is not None
        assert beating.failure.message == "no connection"
    assert story.log[-2:] == ["client: Cancelled", "pool closed"]


async def test_making_counts_as_getting_ready(autojump_clock: MockClock) -> None:
    async def slow() -> Client:
        await trio.sleep(100)
        return Client(Pool())

    container = Story().container().override(Client, slow)
    tree = Supervisor("app", [Child(Heartbeat, restart="never", start_within=3)])
    with pytest.raises(Exception, match="gave up") as caught:
        async with open_host(tree, container=container):
            raise AssertionError
    assert isinstance(caught.value.__cause__, StartTimeout)
    assert trio.current_time() == pytest.approx(3)


async def test_scope_of_a_service_is_there_without_anything_in_it(
    autojump_clock: MockClock,
) -> None:
    seen: list[bool] = []

    async def idle() -> None:
        await trio.lowlevel.checkpoint()
        seen.append(current_service().injected is not None)

    story = Story()
    tree = Supervisor("app", [Supervisor("inner", [idle])])
    async with open_host(tree, container=story.container()) as host:
        await trio.sleep(1)
        (inner,) = host.tree.life.children["inner"].children.values()
        assert inner.injected is None
    assert seen == [True]
    assert story.log == []


# -- jobs ----------------------------------------------------------------------------------


@attrs.frozen
class Jobs(Service):
    """What a pool of workers does with its handler."""

    handler: Callable[..., Awaitable[object]]
    items: tuple[str, ...]

    def job_calls(self) -> Iterable[JobCall]:
        return [(self.handler, 1)]

    async def run(self) -> None:
        life = current_service()
        handle = await life.bind(self.handler, 1)
        async with trio.open_nursery() as nursery:
            for item in self.items:
                nursery.start_soon(self._work, handle, item)

    async def _work(self, handle: Callable[..., Awaitable[object]], item: str) -> None:
        with graceful(), suppress(Boom):
            await handle(item)


async def test_job_gets_what_it_asks_for_in_a_scope_that_sees_how_it_ends(
    autojump_clock: MockClock,
) -> None:
    seen: list[Transaction] = []

    async def handle(item: str, transaction: Transaction, client: Client, story: Story) -> None:
        assert transaction.client is client
        seen.append(transaction)
        await trio.sleep({"good": 1, "bad": 2, "worse": 3}[item])
        if item != "good":
            raise Boom(item)

    story = Story()
    tree = Supervisor("app", [Jobs(handle, ("good", "bad", "worse"))])
    await serve(tree, container=story.container())
    assert story.log == [
        "pool opened",
        "commit",
        "rollback: Boom",
        "rollback: Boom",
        "client: fine",
        "pool closed",
    ]
    assert len(set(seen)) == 3
    assert len(story.clients) == 1


@pytest.mark.parametrize(
    ("lasts", "ends"),
    [
        (5, ["commit", "client: fine"]),
        (50, ["rollback: Cancelled", "client: Cancelled"]),
    ],
)
async def test_job_in_hand_at_a_stop_commits_if_it_is_done_in_time(
    lasts: float, ends: list[str], autojump_clock: MockClock
) -> None:
    async def handle(item: str, transaction: Transaction) -> None:
        await trio.sleep(lasts)

    story = Story()
    tree = Supervisor("app", [Jobs(handle, ("one",))])
    async with open_host(tree, container=story.container()):
        await trio.sleep(1)
    assert story.log == ["pool opened", *ends, "pool closed"]
    assert trio.current_time() == pytest.approx(min(lasts, 11))


async def test_handler_that_asks_for_nothing_is_called_itself(autojump_clock: MockClock) -> None:
    bound: list[bool] = []

    async def handle(item: str) -> None:
        await trio.lowlevel.checkpoint()

    async def look() -> None:
        bound.append(await current_service().bind(handle, 1) is handle)

    await serve(look, container=Story().container())
    await serve(look)
    assert bound == [True, True]


# -- before anything starts ----------------------------------------------------------------


async def wants_missing(missing: Missing) -> None:  # noqa: ASYNC124
    raise AssertionError


class WantsTransaction(Service):
    """Holds on to what ends with a job."""

    def __init__(self, transaction: Transaction) -> None:
        raise AssertionError

    async def run(self) -> None:
        raise AssertionError


async def test_whole_tree_is_checked_before_anything_starts() -> None:
    async def handle(item: str, missing: Missing) -> None:  # noqa: ASYNC124
        raise AssertionError

    started: list[str] = []

    async def idle() -> None:  # noqa: ASYNC124
        started.append("idle")

    tree = Supervisor(
        "app",
        [idle, Supervisor("inner", [wants_missing, WantsTransaction, Jobs(handle, ("a",))])],
    )
    with pytest.raises(PlanError) as caught:
        await serve(tree, container=Story().container())
    assert sorted(str(caught.value).splitlines()) == [
        "Transaction lives for one JOB, and WantsTransaction asks for it in a SERVICE scope; "
        "provide Transaction with scope=SERVICE, or ask for it where it lives",
        "no provider for Missing (asked by handle); add container.provide(Missing, …)",
        "no provider for Missing (asked by wants_missing); add container.provide(Missing, …)",
    ]
    assert started == []


def test_run_ends_with_status_2_and_a_line_for_each_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(wants_missing, container=Container())
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "no provider for Missing (asked by wants_missing); add container.provide(Missing, …)\n"
    )


async def test_service_that_is_started_later_is_checked_then(autojump_clock: MockClock) -> None:
    story = Story()
    async with open_host(Supervisor("app", []), container=story.container()) as host:
        with pytest.raises(PlanError, match="no provider for Missing"):
            await host.tree.start(wants_missing)
        await host.tree.start(Heartbeat)
    assert story.log == ["pool opened", "1 beats", "client: Cancelled", "pool closed"]


async def test_what_a_factory_makes_is_checked_when_it_is_bound(autojump_clock: MockClock) -> None:
    async def handle(item: str, missing: Missing) -> None:  # noqa: ASYNC124
        raise AssertionError

    tree = Supervisor("app", [Child(lambda: Jobs(handle, ("a",)), name="jobs", restart="never")])
    with pytest.raises(Exception, match="no provider for Missing"):
        await serve(tree, container=Story().container())


async def test_disposal_has_to_fit_into_the_time_of_the_stop() -> None:
    tree = Supervisor("app", [Child(Heartbeat, stop_within=8)])
    container = Container(dispose_within=5.0)
    container.provide(Pool)
    container.provide(Client)
    container.provide_value(Story())
    with pytest.raises(PlanError, match="app may need 13 s to stop, but has 12 s"):
        await serve(tree, stop_within=12, container=container)


async def test_failure_of_a_host_object_stops_the_services_in_order(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    @asynccontextmanager
    async def pool() -> AsyncGenerator[Pool]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_connection)
            try:
                yield Pool()
            finally:
                story.log.append("pool closed")

    async def lose_connection() -> None:
        await trio.sleep(3)
        raise Boom("connection lost")

    async def handle(item: str, transaction: Transaction) -> None:
        await trio.sleep(5)

    tree = Supervisor("app", [Jobs(handle, ("one",))])
    with pytest.raises(Boom, match="connection lost"):
        await serve(tree, container=story.container().override(Pool, pool))
    assert story.log == ["commit", "client: fine", "pool closed"]
    assert trio.current_time() == pytest.approx(5)


def test_disposal_that_hangs_at_the_end_of_a_process_is_told_with_status_1(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @asynccontextmanager
    async def pool() -> AsyncGenerator[Pool]:
        yield Pool()
        await trio.sleep_forever()

    async def use(pool: Pool) -> None:
        await trio.lowlevel.checkpoint()

    use.__annotations__["pool"] = Pool
    container = Container(dispose_within=0.1)
    container.provide(pool)
    with pytest.raises(SystemExit) as caught:
        run(use, container=container)
    assert caught.value.code == 1
    told = capfd.readouterr().err
    assert "the disposal of Pool was cut off: it was not done within 0.1 s" in told
    assert "Traceback" not in told


# -- other trees ---------------------------------------------------------------------------


async def test_tree_inside_of_a_service_has_its_own_say(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def inner() -> None:
        await trio.lowlevel.checkpoint()
        seen.extend([current_service().injector, current_service().injected])

    async def outer(client: Client) -> None:
        async with open_supervisor(Supervisor("other", [inner])):
            await trio.sleep(1)

    await serve(outer, container=Story().container())
    assert seen == [None, None]


@pytest.mark.parametrize("scope", [HOST, SERVICE])
async def test_failed_disposal_is_told_and_the_rest_is_disposed_of(
    scope: Scope, autojump_clock: MockClock
) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def pool() -> AsyncGenerator[Pool]:
        try:
            yield Pool()
        finally:
            log.append("pool closed")

    @asynccontextmanager
    async def client(pool: Pool) -> AsyncGenerator[Client]:
        yield Client(pool)
        raise Boom("not closed")

    client.__annotations__["pool"] = Pool
    container = Container()
    container.provide(pool, scope=scope)
    container.provide(client, scope=scope)

    async def use(client: Client) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(Exception, match="not closed"):
        await serve(Supervisor("app", [Child(use, restart="never")]), container=container)
    assert log == ["pool closed"]
