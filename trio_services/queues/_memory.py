"""A bounded queue in memory, with exact books.

Theory. The items wait in a Trio memory channel; this file keeps the books around it. An item is
*accepted* at the moment when the channel takes it: on a `send_nowait` that succeeds, or, for a
producer that waits for room, when a receiver makes room, since the channel moves the first
blocked item into its buffer in that very call. Both happen between two checkpoints, so at each
moment at which anybody can look::

    accepted = depth + in_hand + done + discarded + dead + returned + left

where `in_hand` counts the items that were handed to a worker and have no outcome yet.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, Literal, TypeVar

import attrs
import trio

from ..errors import QueueClosed, QueueFull
from ._job import DeadLetter, Job, Outcome

T = TypeVar("T")

_DEAD_LETTERS_KEPT = 1000
_BURST = 64


@attrs.frozen
class QueueStatistics:
    """The books of a queue at one moment.

    `oldest` is how many seconds the item at the head has been waiting (0 if it was put outside of
    Trio), `blocked` how many
    producers wait for room, `retried` how many further attempts were made; `capacity` and the
    rest are numbers of items.
    """

    depth: int
    capacity: int
    oldest: float
    blocked: int
    in_hand: int
    accepted: int
    done: int
    discarded: int
    dead: int
    returned: int
    left: int
    retried: int

    def __str__(self) -> str:
        """The accounts on one line."""
        always = {"done", "dead", "left"}
        outcomes = ("done", "discarded", "dead", "returned", "left")
        parts = [f"{n} {name}" for name in outcomes if (n := getattr(self, name)) or name in always]
        if self.in_hand:
            parts.append(f"{self.in_hand} in hand")
        if self.depth:
            parts.append(f"{self.depth} waiting")
        return f"{self.accepted} accepted = {' + '.join(parts)}"


class WorkQueue(Generic[T]):
    """A bounded queue of items in memory, from producers to `Workers`.

    Args:
        name: for statistics, logs and errors.
        capacity: how many items may wait; ≥ 1.
        when_full: what `put` does when so many are waiting: ``"wait"`` for room, which slows the
            producer down, or ``"reject"`` the item by raising `QueueFull`.
    """

    def __init__(
        self, name: str, capacity: int = 100, when_full: Literal["wait", "reject"] = "wait"
    ) -> None:
        if type(capacity) is not int or capacity < 1:
            raise ValueError(f"the capacity of queue {name} must be a whole number ≥ 1")
        if when_full not in ("wait", "reject"):
            raise ValueError(f"when_full of queue {name} must be 'wait' or 'reject'")
        self.name = name
        self.capacity = capacity
        self.when_full = when_full
        self._send, self._receive = trio.open_memory_channel[Job[T]](capacity)
        self._accepted_at: deque[float] = deque()  # of the items not taken yet, oldest first
        self._blocked = 0
        self._numbered = 0
        self._accepted = 0
        self._settled = dict.fromkeys(Outcome, 0)
        self._left = 0
        self._retried = 0
        self._consumers = 0
        self._dead_letters: deque[DeadLetter[T]] = deque(maxlen=_DEAD_LETTERS_KEPT)

    def __repr__(self) -> str:
        return f"<WorkQueue {self.name}>"

    # -- for producers -----------------------------------------------------------------

    def put_nowait(self, item: T) -> None:
        """Put an item at the end.

        Raises:
            QueueFull: there is no room.
            QueueClosed: the queue was closed.
        """
        try:
            self._offer(self._job(item))
        except trio.WouldBlock:
            raise QueueFull(self.name, self.capacity) from None

    async def put(self, item: T) -> None:
        """Put an item at the end, waiting for room where the queue does that.

        Raises:
            QueueFull: there is no room, and the queue rejects.
            QueueClosed: the queue was closed, before or while waiting for room.

        Cancellation: a put that is cancelled has not put anything.
        """
        job = self._job(item)
        if job.number % _BURST:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()  # a producer that never waits gives way to others
        try:
            self._offer(job)
        except trio.WouldBlock:
            if self.when_full == "reject":
                raise QueueFull(self.name, self.capacity) from None
            await self._wait_for_room(job)

    def _job(self, item: T) -> Job[T]:
        self._numbered += 1
        return Job(self.name, self._numbered, item)

    def _offer(self, job: Job[T]) -> None:
        try:
            self._send.send_nowait(job)
        except trio.ClosedResourceError:
            raise QueueClosed(self.name) from None
        self._accept()

    async def _wait_for_room(self, job: Job[T]) -> None:
        self._blocked += 1
        try:
            await self._send.send(job)  # whoever makes the room accepts the job: `take_nowait`
        except trio.ClosedResourceError:
            raise QueueClosed(self.name) from None
        finally:
            self._blocked -= 1

    def _accept(self) -> None:
        self._accepted += 1
        self._accepted_at.append(_now())

    def close(self) -> None:
        """Accept no more items; workers end when those that wait are done. Idempotent."""
        self._send.close()

    # -- for observers -----------------------------------------------------------------

    def statistics(self) -> QueueStatistics:
        """The books at this moment."""
        channel = self._receive.statistics()
        depth = channel.current_buffer_used
        # Times of items that were handed over to a worker which has not run since come first.
        age = _now() - self._accepted_at[-depth] if depth else 0.0
        oldest = 0.0 if math.isnan(age) else age
        return QueueStatistics(
            depth=depth,
            capacity=self.capacity,
            oldest=oldest,
            blocked=channel.tasks_waiting_send,
            in_hand=self._accepted - depth - sum(self._settled.values()) - self._left,
            accepted=self._accepted,
            done=self._settled[Outcome.DONE],
            discarded=self._settled[Outcome.DISCARDED],
            dead=self._settled[Outcome.DEAD],
            returned=self._settled[Outcome.RETURNED],
            left=self._left,
            retried=self._retried,
        )

    def dead_letters(self) -> tuple[DeadLetter[T], ...]:
        """The last 1,000 dead letters that no `on_dead` took, oldest first."""
        return tuple(self._dead_letters)

    # -- for workers -------------------------------------------------------------------

    def attach(self) -> None:
        """Some workers are to consume."""
        self._consumers += 1

    def detach(self) -> bool:
        """Some workers have ended for good; with the last of them the queue is closed.

        What is waiting then is left.

        Returns: whether these were the last.
        """
        self._consumers -= 1
        if self._consumers:
            return False
        self.close()
        try:
            while self.take_nowait() is not None:
                self._left += 1
        except trio.EndOfChannel:
            pass
        return True

    async def take(self) -> Job[T]:
        """The next job, as soon as there is one; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed and is empty.

        Cancellation: a take that is cancelled has not taken anything.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = self.take_nowait()
        if job is None:
            job = await self._receive.receive()
            self._accepted_at.popleft()
        return job

    def take_nowait(self) -> Job[T] | None:
        """The next job, or None if there is none now; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed and is empty.
        """
        # Taking one makes room for the first producer that waits, if any really does: one that
        # was cancelled has left the channel before its task could say so.
        makes_room = self._blocked and self._receive.statistics().tasks_waiting_send
        try:
            job = self._receive.receive_nowait()
        except trio.WouldBlock:
            return None
        if makes_room:
            self._accept()
        self._accepted_at.popleft()
        return job

    def settle(self, job: Job[T], outcome: Outcome) -> None:
        """Book the outcome of a job that was taken."""
        self._settled[outcome] += 1

    def count_retry(self) -> None:
        """Book a further attempt."""
        self._retried += 1

    def keep(self, letter: DeadLetter[T]) -> None:
        """Remember a dead letter that nobody else takes."""
        self._dead_letters.append(letter)


def _now() -> float:
    """Seconds on Trio's clock; NaN where there is none, before and after `trio.run`."""
    try:
        return trio.current_time()
    except RuntimeError:
        return math.nan
