from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.lifecycle import Bus, State, events
from trio_services.services import Service, ServiceCall, name_of, service, start, takes_task_status
from trio_services.supervision import Child, Supervisor, open_supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Readiness:
    """A `task_status` that counts."""

    def __init__(self) -> None:
        self.started_times = 0

    def started(self, value: object = None) -> None:
        self.started_times += 1


# -- @service ---------------------------------------------------------------------------


async def test_calling_a_service_function_runs_nothing() -> None:
    ran: list[str] = []

    @service
    async def hello(name: str) -> None:
        await trio.lowlevel.checkpoint()
        ran.append(name)

    value = hello("world")
    await trio.lowlevel.checkpoint()
    assert ran == []
    assert isinstance(value, Service)


async def test_service_value_can_be_run_again_and_again() -> None:
    ran: list[tuple[str, int]] = []

    @service
    async def hello(name: str, *, times: int) -> None:
        await trio.lowlevel.checkpoint()
        ran.append((name, times))

    value = hello("world", times=3)
    await value.run()
    await value.run()
    assert ran == [("world", 3), ("world", 3)]


async def test_service_value_is_restarted_by_a_supervisor(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    @service
    async def hello(name: str) -> None:
        ran.append(name)
        await trio.sleep(1)
        if len(ran) < 3:
            raise OSError

    async with open_supervisor(Supervisor("app", [hello("world")])):
        await trio.sleep(100)
    assert ran == ["world"] * 3


def test_service_function_keeps_its_name_and_docstring() -> None:
    @service
    async def hello(name: str) -> None:
        """Say hello."""

    assert hello.__name__ == "hello"
    assert hello.__doc__ == "Say hello."
    assert hello("world").name == "hello"


def test_service_values_of_the_same_call_are_equal() -> None:
    @service
    async def hello(name: str) -> None: ...

    assert hello("a") == hello("a")
    assert hello("a") != hello("b")
    with pytest.raises(AttributeError):
        hello("a").args = ()  # type: ignore[misc]


async def test_service_function_is_ready_when_it_is_entered() -> None:
    readiness = Readiness()
    seen: list[int] = []

    @service
    async def hello() -> None:
        await trio.lowlevel.checkpoint()
        seen.append(readiness.started_times)

    await start(hello(), readiness)
    assert seen == [1]


async def test_service_function_that_takes_task_status_says_itself_when_it_is_ready() -> None:
    readiness = Readiness()
    seen: list[int] = []

    @service
    async def hello(
        name: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(readiness.started_times)
        task_status.started()
        seen.append(readiness.started_times)

    await start(hello("world"), readiness)
    assert seen == [0, 1]


# -- classes, factories, callables ------------------------------------------------------


class Counter(Service):
    """Counts its own runs."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        assert self.runs == 1, "state leaked from one run to the next"
        raise OSError


@pytest.mark.parametrize("factory", [Counter, lambda: Counter(), partial(Counter)])
async def test_factory_gives_a_fresh_instance_for_each_start(
    factory: Callable[[], Service], autojump_clock: MockClock
) -> None:
    Counter.made = 0
    bus = Bus()
    failures: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ServiceFailed):
            failures.append(event.failure.type)

    with bus.listening(listen):
        async with open_supervisor(Supervisor("app", [Child(factory, name="counter")]), bus=bus):
            await trio.sleep(2)
    assert Counter.made == len(failures) > 1
    assert set(failures) == {"OSError"}


async def test_instance_is_run_as_it_is() -> None:
    class Once(Service):
        runs = 0

        async def run(self) -> None:
            self.runs += 1

    once = Once()
    readiness = Readiness()
    await start(once, readiness)
    await start(once, readiness)
    assert (once.runs, readiness.started_times) == (2, 2)


async def test_instance_that_takes_task_status_says_itself_when_it_is_ready() -> None:
    class Slow(Service):
        async def run(
            self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            await trio.lowlevel.checkpoint()
            assert readiness.started_times == 0
            task_status.started()

    for given in (Slow(), Slow):
        readiness = Readiness()
        await start(given, readiness)
        assert readiness.started_times == 1


async def test_async_function_is_a_service() -> None:
    ran: list[str] = []

    async def hello() -> None:
        await trio.lowlevel.checkpoint()
        ran.append("ran")

    readiness = Readiness()
    awaitable = start(hello, readiness)
    assert (ran, readiness.started_times) == ([], 1)
    await awaitable
    assert ran == ["ran"]


async def test_bound_method_and_callable_object_are_services() -> None:
    ran: list[str] = []

    class Thing:
        async def method(self, task_status: trio.TaskStatus[None]) -> None:
            ran.append("method")
            task_status.started()

        async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
            ran.append("call")
            task_status.started()

    readiness = Readiness()
    await start(Thing().method, readiness)
    await start(Thing(), readiness)
    assert (ran, readiness.started_times) == (["method", "call"], 2)


def test_abstract_service_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Service()  # type: ignore[abstract]


# -- Trio's own services ----------------------------------------------------------------


async def test_trio_s_tcp_server_is_a_service_that_is_ready_when_it_listens() -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    ready: list[events.ServiceReady] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ServiceReady) and event.service == "app/serve_tcp":
            ready.append(event)

    bus = Bus()
    server = partial(trio.serve_tcp, echo, 0, host="127.0.0.1")
    with bus.listening(listen):
        async with open_supervisor(Supervisor("app", [server]), bus=bus) as tree:
            assert tree.life.children["serve_tcp"].state is State.RUNNING
            [listener] = cast("list[trio.SocketListener]", ready[0].value)
            port = listener.socket.getsockname()[1]
            with trio.fail_after(5):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_tcp_server_whose_port_is_taken_does_not_become_ready() -> None:
    taken = trio.socket.socket()
    await taken.bind(("127.0.0.1", 0))
    taken.listen()
    server = partial(
        trio.serve_tcp, trio.aclose_forcefully, taken.getsockname()[1], host="127.0.0.1"
    )
    readiness = Readiness()
    with pytest.raises(OSError, match="in use"):
        await start(server, readiness)
    assert readiness.started_times == 0
    taken.close()


# -- what is no service -----------------------------------------------------------------


@pytest.mark.parametrize("returned", [None, 3, "text", [], object()])
def test_sync_function_that_returns_nothing_to_await_is_refused_by_name(returned: object) -> None:
    def broken() -> object:
        return returned

    with pytest.raises(TypeError, match=r"broken returned .* a service is an async"):
        start(broken, Readiness())  # type: ignore[arg-type]


def test_what_is_no_service_never_says_that_it_is_ready() -> None:
    # Else those that come after it would be started.
    readiness = Readiness()
    with pytest.raises(TypeError):
        start(lambda: None, readiness)  # type: ignore[arg-type]
    assert readiness.started_times == 0


def test_sync_function_that_takes_task_status_is_refused_by_name() -> None:
    def broken(task_status: object) -> None: ...

    with pytest.raises(TypeError, match="broken returned None: a service is"):
        start(broken, Readiness())  # type: ignore[arg-type]


async def test_sync_function_as_service_function_is_refused_by_name() -> None:
    def broken() -> None: ...

    value = service(broken)()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="broken returned None: a service is"):
        await value.run()


def test_error_in_a_factory_is_that_of_the_start() -> None:
    def factory() -> Service:
        raise OSError("no configuration")

    with pytest.raises(OSError, match="no configuration"):
        start(factory, Readiness())


# -- task_status ------------------------------------------------------------------------


async def takes(*, task_status: object) -> None: ...
async def takes_by_position(task_status: object) -> None: ...
async def takes_not(argument: object = None, *args: object, **kwargs: object) -> None:
    await trio.lowlevel.checkpoint()
    task_status = None  # a local variable of that name is no parameter
    del task_status


@wraps(takes)
async def wrapper_that_takes(*args: Any, **kwargs: Any) -> None:
    await takes(*args, **kwargs)


class Methods:
    async def takes(self, task_status: object) -> None: ...
    async def takes_not(self) -> None: ...
    @classmethod
    async def class_takes(cls, task_status: object) -> None: ...
    @staticmethod
    async def static_takes(task_status: object) -> None: ...


class CallTakes:
    async def __call__(self, *, task_status: object) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        takes,
        takes_by_position,
        wrapper_that_takes,
        Methods().takes,
        Methods.class_takes,
        Methods.static_takes,
        CallTakes(),
        partial(takes),
        partial(partial(takes)),
        partial(trio.serve_tcp, trio.aclose_forcefully, 0),
    ],
)
def test_callable_takes_task_status(function: Callable[..., Awaitable[object]]) -> None:
    assert takes_task_status(function)


@pytest.mark.parametrize(
    "function", [takes_not, Methods().takes_not, partial(takes_not), trio.sleep, print, int, dict]
)
def test_callable_does_not_take_task_status(function: Callable[..., Awaitable[object]]) -> None:
    assert not takes_task_status(function)


async def test_service_of_an_argument_named_task_status_in_its_body_is_ready_at_once() -> None:
    readiness = Readiness()
    await start(takes_not, readiness)
    assert readiness.started_times == 1


# -- names ------------------------------------------------------------------------------


class Plain(Service):
    async def run(self) -> None: ...


class Named(Service):
    def __init__(self, name: str = "given") -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def run(self) -> None: ...


@attrs.frozen
class NamedByField(Service):
    name: str = "given"

    async def run(self) -> None: ...


@service
async def hello() -> None: ...


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Plain, "Plain"),
        (Plain(), "Plain"),
        (partial(Plain), "Plain"),
        (Named("mine"), "mine"),
        (NamedByField("mine"), "mine"),
        (hello(), "hello"),
        (hello, "hello"),
        (takes, "takes"),
        (partial(partial(takes), task_status=None), "takes"),
        (partial(trio.serve_tcp, trio.aclose_forcefully, 0), "serve_tcp"),
        (Methods().takes, "takes"),
        (CallTakes(), "CallTakes"),
        (Supervisor("part", []), "part"),
    ],
)
def test_service_goes_by_the_name_of_its_class_or_function(given: object, name: str) -> None:
    assert name_of(given) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [(Named, "Named"), (NamedByField, "NamedByField"), (ServiceCall, "ServiceCall")],
)
def test_class_goes_by_its_own_name_though_its_instances_have_others(
    given: type[Service], name: str
) -> None:
    assert name_of(given) == name
    assert Child(given).name == name


async def test_two_classes_with_names_of_their_own_can_be_supervised_together() -> None:
    tree = Supervisor("app", [Child(Named, restart="never"), Child(NamedByField, restart="never")])
    async with open_supervisor(tree) as running:
        await wait_all_tasks_blocked()
        assert set(running.life.children) == {"Named", "NamedByField"}
