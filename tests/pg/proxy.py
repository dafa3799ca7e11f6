"""A link to the server that can be frozen: nothing comes through, and nothing is closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio


@attrs.define
class Proxy:
    """Forwards to a port on loopback while `open` is set.

    Attributes:
        last: freezes as soon as this text has come through; nothing where empty.
    """

    port: int
    target: int
    open: trio.Event = attrs.Factory(trio.Event)
    last: bytes = b""

    def freeze(self) -> None:
        self.open = trio.Event()

    def thaw(self) -> None:
        self.open.set()

    def url(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    async def handle(self, client: trio.SocketStream) -> None:
        async with (
            client,
            await trio.open_tcp_stream("127.0.0.1", self.target) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._forward, client, server, nursery.cancel_scope)
            nursery.start_soon(self._forward, server, client, nursery.cancel_scope)

    async def _forward(
        self, source: trio.SocketStream, sink: trio.SocketStream, over: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some():
                await self.open.wait()
                await sink.send_all(data)
                if self.last and self.last in data:
                    self.freeze()
        except trio.BrokenResourceError:
            pass
        over.cancel()


@asynccontextmanager
async def open_proxy(target: int) -> AsyncGenerator[Proxy]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]
    proxy = Proxy(port, target)
    proxy.thaw()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy.handle, listeners)
        yield proxy
        nursery.cancel_scope.cancel()
