"""The HTTP server: Hypercorn's HTTP/1.1 on sockets, tasks and deadlines of our own.

Nothing else imports Hypercorn, so that it can be replaced here. Of it we use the protocol and the
running of the ASGI application. Its Trio worker, `trio/run.py` and `trio/tcp_server.py`, is
replaced by `serve_admin` and `_Connection`, because no setting puts these right in it:

- its sends are shielded, so that a client that stops reading stops the server's stopping;
- nothing bounds the time of a request, nor the number of connections;
- an error in one connection ends all;
- it speaks HTTP/2 with whoever asks.
"""

from __future__ import annotations

import errno
import logging
from contextlib import AsyncExitStack, suppress
from typing import cast

import attrs
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from ..errors import ServicesError
from ._app import Program, build_app
from ._bind import Bind
from ._guard import HEAD_BYTES
from ._listen import open_door

_MAX_CONNECTIONS = 100
# Seconds that a client has for its next step: sending a request's head, sending the rest and
# reading our answer, or, in between, wanting anything at all.
_PATIENCE = 5.0
# Seconds for which we read on after our last word.
_LINGER = 1.0
# Seconds until the next `accept` when there are no file descriptors or no memory.
_BREATHER = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REMEDIES = {
    errno.EADDRINUSE: "another process has it; stop that one, or change [admin] bind",
    errno.ENOENT: "make the directory first, or change [admin] bind",
}

_log = logging.getLogger("trio_services.admin")


class AdminUnavailable(ServicesError):
    """The admin server cannot listen, or cannot go on listening; `bind` is where."""

    def __init__(self, bind: Bind, message: str) -> None:
        super().__init__(message)
        self.bind = bind


async def serve_admin(
    bind: Bind,
    program: Program,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer probes and scrapes on `bind`; never returns.

    Args:
        bind: Where to listen.
        program: What is told about, a `Host` for example.
        task_status: Started with the address when clients can connect: ``http://host:port`` with
            the port that was taken, or ``unix:/path``.

    Raises:
        AdminUnavailable: `bind` cannot be listened on, or its socket failed later.

    Cancellation: at any time, and at once: requests and connections are cut off, whatever their
    clients are doing. The socket is closed, and a unix socket's file removed.
    """
    failure: OSError | None = None
    async with AsyncExitStack() as stack:
        try:
            door = await stack.enter_async_context(open_door(bind))
        except OSError as error:
            raise AdminUnavailable(bind, f"cannot listen on {bind}: {_explain(error)}") from error
        app = ASGIWrapper(cast("ASGIFramework", build_app(program, door.hosts)))
        async with trio.open_nursery() as attendants, trio.open_nursery() as connections:
            attendants.start_soon(program.measure_lag)
            task_status.started(door.url)
            failure = await _accept(door.listener, app, connections)
            connections.cancel_scope.cancel()
            attendants.cancel_scope.cancel()
    raise AdminUnavailable(bind, f"cannot go on listening on {bind}: {failure}") from failure


def _explain(error: OSError) -> str:
    what = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "change [admin] bind")
    return f"{what[:1].lower()}{what[1:]}; {remedy}"


async def _accept(
    listener: trio.SocketListener, app: ASGIWrapper, connections: trio.Nursery
) -> OSError:
    """Give each client a task in `connections`; the error that put an end to it."""
    config = _Config()
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                return error
            await trio.sleep(_BREATHER)  # the clients wait in the backlog
            continue
        if len(connections.child_tasks) < _MAX_CONNECTIONS:
            connections.start_soon(_serve_client, stream, app, config)
        else:
            await trio.aclose_forcefully(stream)


async def _serve_client(stream: trio.SocketStream, app: ASGIWrapper, config: Config) -> None:
    try:
        async with stream:
            await _Connection(stream, app, config).serve()
    except* Exception:  # noqa: BLE001 -- a fault costs one client, not the server
        _log.exception("an admin connection failed")


class _Config(Config):
    """Hypercorn's settings: silent, except for errors of the application."""

    accesslog = None
    errorlog = _log
    h11_max_incomplete_size = HEAD_BYTES
    include_server_header = False

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """The headers of every answer, Hypercorn's own ones included."""
        return [*super().response_headers(protocol), (b"cache-control", b"no-store")]


class _Http1(H11Protocol):
    """Hypercorn's HTTP/1.1 without the ways out of it to HTTP/2."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Take no notice of `Upgrade: h2c` and of HTTP/2's preface."""


@attrs.define(eq=False)
class _Connection:
    """One client, from `accept` to the end.

    All of it happens in one cancel scope, whose deadline moves with each step of the client's.
    Nothing is shielded. Thus the time-outs and the caller's cancellation take the same way.
    """

    _stream: trio.SocketStream
    _app: ASGIWrapper
    _config: Config
    _whole: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _reading: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _sending: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    _sent_away: bool = attrs.field(init=False, default=False)

    async def serve(self) -> None:
        """Answer the client's requests until it goes, is too slow, or is sent away."""
        self._extend_deadline()
        with self._whole:
            async with TaskGroup() as requests:
                protocol = _Http1(
                    self._app,
                    self._config,
                    WorkerContext(max_requests=None),
                    requests,
                    ConnectionState({}),
                    ssl=False,
                    client=None,
                    server=None,
                    send=self._send,
                )
                with self._reading:
                    await self._read_to(protocol)
                await protocol.handle(Closed())
        if self._sent_away:
            await self._linger()

    def _extend_deadline(self) -> None:
        self._whole.deadline = trio.current_time() + _PATIENCE

    async def _read_to(self, protocol: H11Protocol) -> None:
        data = b"-"
        while data:
            try:
                data = bytes(await self._stream.receive_some(HEAD_BYTES))
            except trio.BrokenResourceError:
                self._whole.cancel()
                return
            await protocol.handle(RawData(data))  # b"", too: to h11 it is the end of the input

    async def _send(self, event: Event) -> None:
        """Do what Hypercorn asks for."""
        if isinstance(event, RawData):
            async with self._sending:
                try:
                    await self._stream.send_all(event.data)
                except trio.BrokenResourceError:
                    self._whole.cancel()
        elif isinstance(event, Updated):  # a request has begun, or was answered
            self._extend_deadline()
        elif isinstance(event, Closed):
            # Not the whole: after a garbled request, the answer to the one before may be under way.
            self._sent_away = True
            self._reading.cancel()

    async def _linger(self) -> None:
        # To close with unread input resets the connection, and the client may lose our answer: the
        # one, for example, that its request is too large.
        with trio.move_on_after(_LINGER), suppress(trio.BrokenResourceError):
            await self._stream.send_eof()
            while await self._stream.receive_some(HEAD_BYTES):
                pass
