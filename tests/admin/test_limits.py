from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager

import pytest
import trio

from trio_services.admin import _server

from .client import Client, serving


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(_server, "_PATIENCE", 0.3)
    return 0.3


@contextmanager
def _takes(least: float, most: float) -> Generator[None]:
    start = trio.current_time()
    yield
    assert least <= trio.current_time() - start <= most


def test_patience_is_five_seconds() -> None:
    assert _server._PATIENCE == 5.0


@pytest.mark.parametrize(
    "start",
    ["", "GET", "GET /live HTTP/1.1\r\nHost: {0}\r\n"],
    ids=["nothing", "part of a line", "part of a head"],
)
async def test_client_whose_request_does_not_arrive_is_cut_off(patience: float, start: str) -> None:
    async with serving() as server, server.client() as client:
        with _takes(patience - 0.1, patience + 0.5):
            await client.send(start.format(client.host).encode())
            assert await client.closed()


async def test_client_that_trickles_its_head_is_cut_off(patience: float) -> None:
    async with serving() as server, server.client() as client:

        async def trickle() -> None:
            for byte in client.request("GET", "/live", "X: " + "x" * 500):
                await client.send(bytes([byte]))
                await trio.sleep(0.01)

        with _takes(patience - 0.1, patience + 0.5), pytest.raises(trio.BrokenResourceError):
            await trickle()


async def test_client_that_trickles_its_body_is_cut_off(patience: float) -> None:
    async with serving() as server, server.client() as client:
        with _takes(patience - 0.1, patience + 0.5):
            await client.send(client.request("POST", "/live", "Content-Length: 10") + b"12345")
            assert await client.closed()


async def test_idle_client_is_cut_off_and_a_busy_one_is_not(patience: float) -> None:
    async with serving() as server, server.client() as client:
        with _takes(3 * patience, 4 * patience + 0.5):
            for _ in range(6):
                await trio.sleep(patience / 2)
                assert (await client.get("/live")).status == 200
            assert await client.closed()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_client_that_stops_reading_is_cut_off(
    patience: float, kind: str, tmp_path: os.PathLike[str]
) -> None:
    bind = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/s"
    async with serving(bind) as server:
        with trio.fail_after(patience + 1):
            # Its sends, and with them the nursery, end only when the server has closed.
            async with trio.open_nursery() as nursery:
                client = await server.stuck_reader(nursery)
        await client.stream.aclose()


async def test_live_is_answered_while_fifty_clients_are_stuck() -> None:
    times: list[float] = []
    async with serving() as server, trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for number in range(50):
            client = await (server.stuck_reader(nursery) if number < 10 else server.connect())
            stack.push_async_callback(client.stream.aclose)
            if 10 <= number < 40:
                await client.send(b"GET /live HTTP/1.1\r\n")
        for _ in range(100):
            start = trio.current_time()
            assert (await server.get("/live")).status == 200
            times.append(trio.current_time() - start)
        nursery.cancel_scope.cancel()
    assert len(times) == 100
    assert sorted(times)[-2] < 0.25


async def test_connections_beyond_a_hundred_are_closed_at_once() -> None:
    async with serving() as server, AsyncExitStack() as stack:

        async def connect() -> Client:
            client = await server.connect()
            await stack.enter_async_context(client.stream)
            return client

        clients = [await connect() for _ in range(100)]
        with trio.fail_after(1):
            assert await (await connect()).closed()
            for client in clients:
                assert (await client.get("/live")).status == 200
            await clients.pop().stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (await (await connect()).get("/live")).status == 200


@pytest.mark.parametrize("moment", ["idle", "in its head", "unread answers", "sent away"])
async def test_client_that_resets_is_forgotten_without_a_word(
    moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        if moment == "unread answers":
            client = await server.stuck_reader(nursery)
        else:
            client = await server.connect()
        if moment == "in its head":
            await client.send(b"GET")
        elif moment == "sent away":
            assert (await client.ask("TRACE", "/live")).status == 405
        await trio.testing.wait_all_tasks_blocked(0.01)
        tasks = trio.lowlevel.current_statistics().tasks_living

        nursery.cancel_scope.cancel()
        reset_on_close = struct.pack("ii", 1, 0)
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)

        assert trio.lowlevel.current_statistics().tasks_living < tasks
        assert (await server.get("/live")).status == 200
    assert not caplog.records


async def test_client_that_stays_after_it_was_sent_away_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_server, "_LINGER", 0.3)
    async with serving() as server, server.client() as client:
        assert (await client.ask("TRACE", "/live")).status == 405

        async def stay() -> None:
            while True:
                await client.send(b"x")
                await trio.sleep(0.01)

        with _takes(0.2, 0.8), pytest.raises(trio.BrokenResourceError):
            await stay()


async def test_fault_in_one_connection_costs_only_that_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serve = _server._Connection.serve

    async def faulty(self: _server._Connection) -> None:
        monkeypatch.setattr(_server._Connection, "serve", serve)
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a fault")

    monkeypatch.setattr(_server._Connection, "serve", faulty)
    async with serving() as server, server.client() as unlucky:
        assert await unlucky.closed()
        assert (await server.get("/live")).status == 200
    assert "a fault" in caplog.text


async def test_client_waits_while_there_are_no_file_descriptors() -> None:
    async with serving() as server:
        client_socket = trio.socket.socket()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        hoard: list[int] = []

        def use_up_file_descriptors() -> None:
            while True:
                hoard.append(os.open(os.devnull, os.O_RDONLY))

        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                use_up_file_descriptors()
            await client_socket.connect(("127.0.0.1", server.port))
            client = Client(trio.SocketStream(client_socket), f"127.0.0.1:{server.port}")
            await client.send(client.request("GET", "/live"))
            with trio.move_on_after(0.3):
                raise AssertionError(await client.reply())
        finally:
            for fd in hoard:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with trio.fail_after(1):
            assert (await client.reply()).status == 200
        await client.stream.aclose()
