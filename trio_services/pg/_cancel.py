"""Stopping in the server what was cancelled here, which closing the connection would not do."""

from __future__ import annotations

import trio
from psycopg import OperationalError, capabilities, generators
from psycopg.pq import ExecStatus, PollingStatus
from psycopg.pq.abc import PGcancelConn, PGconn

from ._wait import READ, WRITE, Steps

# A cancellation of many queries opens one connection for each, on top of those that there are.
_AT_ONCE = 8
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("pg.cancellations")


async def cancel_query(pgconn: PGconn) -> None:
    """Ask the server to cancel what it does for a connection, and wait until it was told.

    It may have been done with it before it is told; what follows is then not cancelled, since the
    server forgets a cancellation that finds nothing to cancel.

    Raises:
        psycopg.Error: the server could not be asked.

    Cancellation: at any time.
    """
    async with _limit():
        if not capabilities.has_cancel_safe():  # libpq before 17
            cancel = pgconn.get_cancel().cancel
            await trio.to_thread.run_sync(cancel, abandon_on_cancel=True)
            return
        request = pgconn.cancel_conn()
        try:
            request.start()
            await _complete(request)
        finally:
            request.finish()


async def _complete(request: PGcancelConn) -> None:
    while (status := request.poll()) != PollingStatus.OK:
        if status == PollingStatus.READING:
            await trio.lowlevel.wait_readable(request.socket)
        elif status == PollingStatus.WRITING:
            await trio.lowlevel.wait_writable(request.socket)
        else:
            raise OperationalError(f"cancellation failed: {request.get_error_message()}")


def _limit() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_AT_ONCE)
        _limiter.set(limiter)
        return limiter


def drain(pgconn: PGconn) -> Steps[None]:
    """Put an end to a COPY or a stream of rows that was left in the middle."""
    while result := (yield from generators.fetch(pgconn)):
        if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_BOTH):
            while pgconn.put_copy_end(b"cancelled") == 0:
                yield from _until(WRITE)
            while pgconn.flush() != 0:
                yield from _until(WRITE)
        elif result.status == ExecStatus.COPY_OUT:
            while (size := pgconn.get_copy_data(1)[0]) >= 0:
                if size == 0:
                    yield from _until(READ)
                    pgconn.consume_input()


def _until(wanted: int) -> Steps[None]:
    while not (yield wanted):
        pass
