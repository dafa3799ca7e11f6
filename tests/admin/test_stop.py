from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from trio_services.admin import Bind, serve_admin

from .client import Client, Program, Server, serving

PROMPT = 1.0  # seconds; what is not prompt takes the 5 s of some time-out


@pytest.fixture(params=["tcp", "unix"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/admin.sock"


@contextmanager
def _leaves_nothing(tmp_path: Path) -> Generator[None]:
    """No file, file descriptor or task more than before."""

    def state() -> tuple[list[Path], list[Path], int]:
        tasks = trio.lowlevel.current_statistics().tasks_living
        return list(tmp_path.iterdir()), sorted(Path("/proc/self/fd").iterdir()), tasks

    before = state()
    yield
    assert state() == before


async def _nobody(server: Server, _: trio.Nursery) -> None:
    assert (await server.get("/live")).status == 200


async def _just_connected(server: Server, _: trio.Nursery) -> Client:
    return await server.connect()


async def _idle(server: Server, _: trio.Nursery) -> Client:
    client = await server.connect()
    await client.get("/live")
    return client


async def _in_its_head(server: Server, _: trio.Nursery) -> Client:
    client = await server.connect()
    await client.send(client.request("GET", "/live")[:-2])
    return client


async def _in_its_body(server: Server, _: trio.Nursery) -> Client:
    client = await server.connect()
    await client.send(client.request("POST", "/live", "Content-Length: 10") + b"12345")
    return client


async def _not_reading(server: Server, nursery: trio.Nursery) -> Client:
    return await server.stuck_reader(nursery)


async def _sent_away_but_staying(server: Server, _: trio.Nursery) -> Client:
    client = await server.connect()
    assert (await client.ask("TRACE", "/live")).status == 405
    return client


@pytest.mark.parametrize(
    "behaviour",
    [
        _nobody,
        _just_connected,
        _idle,
        _in_its_head,
        _in_its_body,
        _not_reading,
        _sent_away_but_staying,
    ],
)
async def test_stop_is_prompt_whatever_a_client_does(
    behaviour: Callable[[Server, trio.Nursery], Awaitable[Client | None]], bind: str, tmp_path: Path
) -> None:
    async with trio.open_nursery() as rude:
        with _leaves_nothing(tmp_path):
            async with trio.open_nursery() as nursery:
                url = await nursery.start(serve_admin, Bind.parse(bind), Program())
                client = await behaviour(Server(url), rude)
                await trio.testing.wait_all_tasks_blocked(0.01)
                start = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - start < PROMPT
            if client is not None:
                rude.cancel_scope.cancel()
                await client.stream.aclose()
                await trio.testing.wait_all_tasks_blocked()


async def test_stop_is_prompt_with_a_hundred_clients_of_which_ten_are_stuck(tmp_path: Path) -> None:
    async with trio.open_nursery() as rude, AsyncExitStack() as stack:
        async with serving(f"unix:{tmp_path}/admin.sock") as server:
            for number in range(100):
                client = await (server.stuck_reader(rude) if number < 10 else server.connect())
                stack.push_async_callback(client.stream.aclose)
            start = trio.current_time()
        assert trio.current_time() - start < PROMPT
        rude.cancel_scope.cancel()


async def test_client_sees_the_end(bind: str) -> None:
    async with serving(bind) as server:
        client = await server.connect()
        await client.get("/live")
    with trio.fail_after(1):
        assert await client.closed()
    await client.stream.aclose()


async def test_nobody_can_connect_after_the_end(bind: str) -> None:
    async with serving(bind) as server:
        pass
    with pytest.raises(OSError):
        await server.connect()


async def test_cancelled_before_it_is_started_it_never_listens(bind: str, tmp_path: Path) -> None:
    with _leaves_nothing(tmp_path), trio.CancelScope() as scope:
        scope.cancel()
        await serve_admin(Bind.parse(bind), Program())
    assert scope.cancelled_caught


async def test_its_cancellation_reaches_the_caller(bind: str) -> None:
    with trio.move_on_after(0.05) as scope:
        await serve_admin(Bind.parse(bind), Program())
    assert scope.cancelled_caught


@attrs.define(eq=False)
class _CancelAtStep(trio.abc.Instrument):
    """Cancels when the run comes to its `steps`-th step of a task."""

    scope: trio.CancelScope
    steps: int

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.scope.cancel()


@pytest.mark.parametrize("kind", ["answer", "refusal", "body", "unread answers"])
async def test_it_can_be_cancelled_at_any_step(kind: str, bind: str, tmp_path: Path) -> None:
    steps = 0
    done = False
    while not done:
        steps += 1
        with _leaves_nothing(tmp_path), trio.fail_after(1):
            done = await _cancelled_at(steps, kind, bind)
    assert steps > 20


async def _cancelled_at(steps: int, kind: str, bind: str) -> bool:
    """Whether all was done before that many steps."""
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        with scope:
            await serve_admin(Bind.parse(bind), Program(), task_status=task_status)

    instrument = _CancelAtStep(scope, steps)
    trio.lowlevel.add_instrument(instrument)
    try:
        async with trio.open_nursery() as nursery:
            try:
                server = Server(await nursery.start(serve))
                async with server.client() as client:
                    await _talk(client, kind)
            except (RuntimeError, OSError, EOFError, trio.BrokenResourceError):
                assert scope.cancel_called  # before it was started, or while they talked
            done = not scope.cancel_called
            scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return done


async def _talk(client: Client, kind: str) -> None:
    if kind == "answer":
        await client.get("/live")
        await client.get("/ready")
    elif kind == "refusal":
        await client.ask("TRACE", "/live")
        assert await client.closed()
    elif kind == "body":
        await client.ask("POST", "/live", "Transfer-Encoding: chunked", body=b"1\r\n-\r\n0\r\n\r\n")
    else:
        await client.send(client.request("GET", "/live") * 3)
        await trio.testing.wait_all_tasks_blocked()
