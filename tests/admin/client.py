"""A server under test, and a client that can be as rude as a test needs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_services import admin
from trio_services.admin import Bind
from trio_services.lifecycle import Health, State
from trio_services.supervision import ServiceStatistics
from trio_services.telemetry import HealthReport, Meter, Readings, ServiceHealth


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define
class Client:
    stream: trio.SocketStream
    host: str
    unread: bytes = b""

    def request(self, method: str, path: str, *headers: str, host: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host if host is None else host}"]
        return "\r\n".join([*lines, *headers, "", ""]).encode()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(
        self, method: str, path: str, *headers: str, body: bytes = b"", host: str | None = None
    ) -> Reply:
        await self.send(self.request(method, path, *headers, host=host) + body)
        return await self.reply(bodiless=method == "HEAD")

    async def get(self, path: str) -> Reply:
        return await self.ask("GET", path)

    async def reply(self, *, bodiless: bool = False) -> Reply:
        """The next answer; `EOFError` when the server closes before it."""
        while b"\r\n\r\n" not in self.unread:
            await self._read()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = 0 if bodiless or status.split()[1] == "100" else int(headers["content-length"])
        while len(self.unread) < length:
            await self._read()
        body, self.unread = self.unread[:length], self.unread[length:]
        return Reply(int(status.split()[1]), headers, body)

    async def closed(self) -> bool:
        """Wait until the server closes; whether it did so without another byte."""
        try:
            await self._read()
        except (EOFError, trio.BrokenResourceError):
            return not self.unread
        return False

    async def _read(self) -> None:
        with trio.fail_after(5):
            data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self.unread += data


@attrs.frozen
class Server:
    url: str

    @property
    def path(self) -> str:
        return self.url.removeprefix("unix:")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def connect(self) -> Client:
        if self.url.startswith("unix:"):
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            try:
                await sock.connect(self.path)
            except BaseException:
                sock.close()
                raise
            return Client(trio.SocketStream(sock), "anything")
        authority = self.url.removeprefix("http://")
        host = authority.rpartition(":")[0].strip("[]")
        return Client(await trio.open_tcp_stream(host, self.port), authority)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        client = await self.connect()
        async with client.stream:
            yield client

    async def get(self, path: str) -> Reply:
        async with self.client() as client:
            return await client.get(path)

    async def stuck_reader(self, nursery: trio.Nursery) -> Client:
        """A client that has asked for more answers than the sockets hold, and reads none."""
        client = await self.connect()
        client.stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2304)
        wall = trio.Event()

        async def ask_on_and_on() -> None:
            questions = client.request("GET", "/live") * 100
            try:
                while True:
                    with trio.move_on_after(0.1) as scope:
                        await client.send(questions)
                    if scope.cancelled_caught:
                        wall.set()
                        await client.send(questions)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(ask_on_and_on)
        await wall.wait()
        return client


def nothing() -> Sequence[str]:
    return []


@attrs.define
class Program:
    """What the admin server tells about, as a test wants it."""

    unready: Callable[[], Sequence[str]] = nothing
    was_ready: bool = True
    services: Sequence[ServiceHealth] = ()

    async def health(self) -> HealthReport:
        await trio.lowlevel.checkpoint()
        return HealthReport(tuple(self.services))

    def readings(self) -> Readings:
        services = ServiceStatistics(
            name="app",
            state=State.RUNNING,
            since=0.0,
            restarts=0,
            failure=None,
            next_start=None,
            breaker=None,
            waits_on=(),
            tasks=(),
            work=None,
            critical=True,
            health=Health.healthy(),
            children=(),
        )
        return Meter().read(services, ())

    async def measure_lag(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def serving(
    bind: str = "127.0.0.1:0", program: admin.Program | None = None
) -> AsyncGenerator[Server]:
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(admin.serve_admin, Bind.parse(bind), program or Program())
        yield Server(url)
        nursery.cancel_scope.cancel()
