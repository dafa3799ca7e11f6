"""Driving a connection's generators under Trio's cancellations.

Theory. Trio's cancellations go on until the cancelled scope is left: each `await` of a clean-up
that psycopg makes would be cancelled as well. Three rules make up for it.

1. What has not been sent is not begun. Each wait checks for cancellation before it starts.
2. What has been sent is seen to its end. The server is asked to cancel it, and the same generator
   is driven on, shielded, until the server has answered. If it could not be cancelled any more, its
   result is returned: `Cancelled` out of a query says that the query had no effect. A COMMIT is
   not cancelled in the server, but waited for.
3. What a cancellation leaves open is closed on the way: a COPY or a stream by the next wait on the
   connection that is cancelled, transactions and pipelines by their own exit.

Each of these has `CLEAN_UP` seconds. A connection that does not come to rest in them is closed.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final, TypeVar

import trio
from psycopg import OperationalError, errors
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn

from ..errors import CommitUnknown
from ._cancel import cancel_query, drain
from ._wait import Steps, Waiter

RV = TypeVar("RV")

CLEAN_UP: Final = 5.0
"""Seconds that the server has to answer before a cancelled connection is closed."""

_PATIENCE = 0.1  # seconds; what ends by itself within them need not be cancelled in the server

_BAD = ConnStatus.BAD
_ACTIVE = TransactionStatus.ACTIVE


class Driver:
    """Drives the generators of one connection, and closes it.

    Args:
        pgconn: libpq's part of it, connected.
    """

    __slots__ = ("_fd", "_pgconn", "_waiter")

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._fd = pgconn.socket
        self._waiter = Waiter(self._fd)

    @property
    def closed(self) -> bool:
        """Whether it is known to be closed."""
        return self._pgconn.status == _BAD

    @property
    def alive(self) -> bool:
        """Whether the server has not closed it, as far as it has told; does not ask it."""
        if self.closed:
            return False
        try:
            while self._waiter.readable:
                self._pgconn.consume_input()
        except OperationalError:
            return False
        return not self.closed

    def close(self) -> None:
        """Close the connection at once, whatever goes on in the server."""
        if not self.closed:
            trio.lowlevel.notify_closing(self._fd)
        self._pgconn.finish()

    async def run(self, gen: Steps[RV], *, abort: bool = True) -> RV:
        """Drive a generator to its end.

        Args:
            gen: what to do.
            abort: whether the server may be asked to cancel it.

        Cancellation: before it begins, or in the server.
        """
        if self._pgconn.status == _BAD:
            raise OperationalError("the connection is closed")
        try:
            await self._waiter.breathe()
        except BaseException:
            gen.close()
            await self._come_to_rest()  # noqa: ASYNC102 -- is shielded
            raise
        try:
            return await self._waiter.drive(gen)
        except Exception:
            raise
        except BaseException as interruption:  # noqa: BLE001, ASYNC103 -- decided there
            return await self._interrupted(gen, interruption, abort)  # noqa: ASYNC102, ASYNC104

    async def _interrupted(self, gen: Steps[RV], interruption: BaseException, abort: bool) -> RV:
        """See to the end what was sent, and give its result if it came before the cancellation."""
        if self._pgconn.transaction_status != _ACTIVE:
            gen.close()  # which waited for notifications
            raise interruption
        try:
            result = await self._finish(gen, abort=abort)
        except Exception:  # noqa: BLE001 -- of the generator, such as QueryCanceled
            raise interruption from None
        if isinstance(interruption, trio.Cancelled):
            return result  # the scope is still cancelled, for whatever comes next
        await self._come_to_rest()
        raise interruption

    async def ensure(self, gen: Steps[RV]) -> RV:
        """Drive a generator to its end, cancelled or not.

        Cancellation: has `CLEAN_UP` seconds from then on, and does not raise.
        """
        try:
            await self._waiter.breathe()
        except trio.Cancelled:  # noqa: ASYNC103 -- which is delivered after this again
            return await self._finish(  # noqa: ASYNC102, ASYNC104
                gen, begun=False, patience=_PATIENCE
            )
        try:
            return await self._waiter.drive(gen)
        except trio.Cancelled:  # noqa: ASYNC103 -- likewise
            return await self._finish(gen, patience=_PATIENCE)  # noqa: ASYNC102, ASYNC104

    async def conclude(self, gen: Steps[RV]) -> RV:
        """Drive a generator that commits.

        Raises:
            CommitUnknown: the connection was lost before the server has answered.

        Cancellation: before it begins. After that it has `CLEAN_UP` seconds, and does not raise.
        """
        try:
            await self._waiter.breathe()
        except BaseException:
            gen.close()
            raise
        alive = not self.closed
        try:
            try:
                return await self._waiter.drive(gen)
            except trio.Cancelled:  # noqa: ASYNC103 -- which is delivered after this again
                return await self._finish(gen, patience=math.inf)  # noqa: ASYNC102, ASYNC104
        except Exception as error:
            # Who was idle for too long was cut off before; all else is uncertain.
            idled = isinstance(error, errors.IdleInTransactionSessionTimeout)
            if alive and self.closed and not idled:
                raise CommitUnknown from error
            raise

    async def _finish(
        self, gen: Steps[RV], *, begun: bool = True, patience: float = 0.0, abort: bool = True
    ) -> RV:
        """Drive to its end what cannot be left, with the help of the server.

        Args:
            gen: what was begun, or has to be.
            begun: whether it was.
            patience: seconds until the server is asked to cancel it; twice as many until it is
                asked again.
            abort: whether the server may be asked at all.

        Raises:
            OperationalError: it does not end, and the connection is closed.

        Cancellation: shielded, for as long as `CLEAN_UP`.
        """
        with trio.move_on_after(CLEAN_UP, shield=True):
            while True:
                with trio.move_on_after(patience if abort else math.inf):
                    return await self._waiter.drive(gen, resume=begun)
                begun = True
                with suppress(errors.Error):
                    await cancel_query(self._pgconn)
                patience = max(2 * patience, _PATIENCE)
        self.close()
        raise OperationalError(
            f"the server did not answer within {CLEAN_UP:g} s of a cancellation: connection closed"
        )

    async def _come_to_rest(self) -> None:
        """End a COPY or a stream that has nobody left who could."""
        pgconn = self._pgconn
        if pgconn.transaction_status == _ACTIVE and pgconn.pipeline_status == PipelineStatus.OFF:
            with suppress(errors.Error):
                await self._finish(drain(pgconn), begun=False)
