"""Servers for alerts, over real sockets: one that answers, and some that behave badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

PATIENCE = 10.0

Behaviour = Callable[["Receiver", trio.abc.Stream], Awaitable[None]]


@attrs.define
class Receiver:
    """What a server was sent; `contents` are the bodies of requests."""

    url: str
    heads: list[str] = attrs.field(factory=list[str])
    contents: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    _news: trio.Event = attrs.Factory(trio.Event)

    async def read(self, stream: trio.abc.Stream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._some(stream)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        while len(body) < length:
            body += await self._some(stream)
        self.heads.append(head.decode())
        self.contents.append(json.loads(body))
        self._news.set()
        self._news = trio.Event()

    async def has(self, count: int) -> None:
        with trio.fail_after(PATIENCE):  # noqa: ASYNC912 -- of what is there by now
            while len(self.contents) < count:
                await self._news.wait()

    async def _some(self, stream: trio.abc.Stream) -> bytes:
        data = bytes(await stream.receive_some())
        if not data:
            raise EOFError
        return data


def answering(status: str, *headers: str) -> Behaviour:
    async def answer(receiver: Receiver, stream: trio.abc.Stream) -> None:
        await receiver.read(stream)
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]
        await stream.send_all("\r\n".join(lines).encode())

    return answer


async def silent(receiver: Receiver, stream: trio.abc.Stream) -> None:
    await receiver.read(stream)
    await trio.sleep_forever()


async def trickling(receiver: Receiver, stream: trio.abc.Stream) -> None:
    await receiver.read(stream)
    for _ in range(1000):
        await stream.send_all(b"HTTP/1.1 200 OK\r\nX-More: " if _ == 0 else b"x")
        await trio.sleep(0.05)


async def hanging_up(receiver: Receiver, stream: trio.abc.Stream) -> None:
    await receiver.read(stream)


@asynccontextmanager
async def serving(
    behaviour: Behaviour, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Receiver]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    receiver = Receiver(f"http{'s' if tls else ''}://127.0.0.1:{port}/hook?key=s3cret")

    async def handle(accepted: trio.SocketStream) -> None:
        stream: trio.abc.Stream = accepted
        if tls is not None:
            stream = trio.SSLStream(accepted, tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                await behaviour(receiver, stream)
        except (EOFError, trio.BrokenResourceError):
            pass

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [listener])
        yield receiver
        nursery.cancel_scope.cancel()
