"""A bounded queue in memory, with exact books.

Theory. This is a memory channel as Trio has them, with the books inside: producers and workers wait
in order, and whoever takes an item lets the first producer that waits for room put its own.
Trio's own channel cannot tell the moment at which it accepts the item of a producer that waits,
cannot give up its oldest item or take one back, and wakes a worker for each item. Here an item
wakes one worker, unless one is waking already; a worker that finds more than it takes wakes two
more. So a worker that is quick enough does alone what would have woken a hundred. All of it
happens between two checkpoints, so at each moment at which anybody can look::

    accepted = depth + in_hand + done + discarded + dead + returned + left

where `in_hand` counts the items that were handed to a worker and have no outcome yet. An item that
`drop_oldest` gives up is no longer among those accepted, it is one of the `dropped`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, TypeVar, get_args

import attrs
import trio
from outcome import Error
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from ..errors import QueueClosed, QueueFull
from ..resilience import Retry
from ._job import DeadLetter, Job, Outcome

T = TypeVar("T")

WhenFull = Literal["wait", "reject", "drop_oldest", "drop_newest"]

_DEAD_LETTERS_KEPT = 1000
_BURST = 64


@attrs.frozen
class QueueStatistics:
    """The books of a queue at one moment; but for the first four, numbers of items.

    Attributes:
        paused: whether workers get nothing from it for now.
        capacity: how many items may wait.
        oldest: seconds that the item at the head has been waiting; 0 if it was put outside of Trio.
        blocked: how many producers wait for room.
        depth: waiting.
        in_hand: with a worker.
        accepted: taken in.
        done: how many came to that; see `Outcome`.
        discarded: likewise.
        dead: likewise.
        returned: likewise.
        left: still waiting when its workers had ended for good.
        dropped: given up because the queue was full.
        retried: how many further attempts were made.
    """

    paused: bool
    capacity: int
    oldest: float
    blocked: int
    depth: int
    in_hand: int
    accepted: int
    done: int
    discarded: int
    dead: int
    returned: int
    left: int
    dropped: int
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
        dropped = f", and {self.dropped} dropped" if self.dropped else ""
        return f"{self.accepted} accepted = {' + '.join(parts)}{dropped}"


class WorkQueue(Generic[T]):
    """A bounded queue of items in memory, from producers to `Workers`.

    Args:
        name: for statistics, logs and errors.
        capacity: how many items may wait; ≥ 1.
        when_full: what `put` does when so many are waiting: ``"wait"`` for room, which slows the
            producer down; ``"reject"`` the item by raising `QueueFull`; ``"drop_oldest"``, which
            gives up the one that waits longest; or ``"drop_newest"``, the item itself. What is
            dropped is counted.
    """

    def __init__(self, name: str, capacity: int = 100, when_full: WhenFull = "wait") -> None:
        if type(capacity) is not int or capacity < 1:
            raise ValueError(f"the capacity of queue {name} must be a whole number ≥ 1")
        if when_full not in get_args(WhenFull):
            choices = ", ".join(map(repr, get_args(WhenFull)))
            raise ValueError(f"when_full of queue {name} must be one of {choices}")
        self.name: str = name
        self.capacity: int = capacity
        self.when_full: WhenFull = when_full
        self._waiting: deque[Job[T]] = deque()
        # Those who wait, in order. A worker waits only while it can be given nothing, a producer
        # only while there is no room.
        self._takers: dict[Task, None] = {}
        self._putters: dict[Task, Job[T]] = {}
        self._waking = 0  # workers that were woken, and have not looked yet
        self._closed = False
        self._paused = False
        self._numbered = 0
        self._accepted = 0
        self._dropped = 0
        self._settled = dict.fromkeys(Outcome, 0)
        self._left = 0
        self._retried = 0
        self._consumers = 0
        self._feeders: set[str] = set()
        self._dead_letters: deque[DeadLetter[T]] = deque(maxlen=_DEAD_LETTERS_KEPT)
        self._now: Callable[[], float] = _now
        self.retry: Retry | None = None
        self.lends: bool = False

    def __repr__(self) -> str:
        return f"<WorkQueue {self.name}>"

    # -- for producers -----------------------------------------------------------------

    @enable_ki_protection
    def put_nowait(self, item: T) -> None:
        """Put an item at the end.

        Raises:
            QueueFull: there is no room, and the queue drops nothing.
            QueueClosed: the queue was closed.
        """
        self._numbered += 1
        if not self._offer(Job(self.name, self._numbered, item)):
            raise QueueFull(self.name, self.capacity)

    @enable_ki_protection
    async def put(self, item: T) -> None:
        """Put an item at the end, waiting for room where the queue does that.

        Raises:
            QueueFull: there is no room, and the queue rejects.
            QueueClosed: the queue was closed, before or while waiting for room.

        Cancellation: a put that is cancelled has not put anything.
        """
        self._numbered += 1
        if self._numbered % _BURST:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()  # a producer that never waits gives way to others
        job = Job(self.name, self._numbered, item)
        if not self._offer(job):
            if self.when_full == "reject":
                raise QueueFull(self.name, self.capacity)
            await self._wait_for_room(job)

    def _offer(self, job: Job[T]) -> bool:
        """Accept a job, or drop one, if that can be done now."""
        if self._closed:
            raise QueueClosed(self.name)
        if len(self._waiting) >= self.capacity and not self._has_room():
            if self.when_full == "drop_newest":
                self._dropped += 1
                return True
            if self.when_full != "drop_oldest":
                return False
            self._waiting.popleft()
            self._accepted -= 1
            self._dropped += 1
        job.accepted_at = self._now()
        self._waiting.append(job)
        self._accepted += 1
        if self._takers and not self._waking and not self._paused:
            self._wake(1)
        return True

    def _has_room(self) -> bool:
        """Whether there are workers that wait for as much as there is above the capacity."""
        idle = 0 if self._paused else len(self._takers) + self._waking
        return len(self._waiting) < self.capacity + idle

    def _wake(self, count: float) -> None:
        """Let some of those workers look again that have waited longest."""
        while self._takers and count:
            task = next(iter(self._takers))
            del self._takers[task]
            self._waking += 1
            trio.lowlevel.reschedule(task)
            count -= 1

    async def _wait_for_room(self, job: Job[T]) -> None:
        task = trio.lowlevel.current_task()
        self._putters[task] = job

        def abort(_: RaiseCancelT) -> Abort:
            del self._putters[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    @enable_ki_protection
    def close(self) -> None:
        """Accept no more items; workers end when those that wait are done. Idempotent."""
        self._closed = True
        for task in self._putters:
            trio.lowlevel.reschedule(task, Error(QueueClosed(self.name)))
        self._putters.clear()
        if not self._waiting:
            self._wake(math.inf)

    # -- for operators -----------------------------------------------------------------

    def pause(self) -> None:
        """Give nothing to workers for now; what they have in hand they finish. Idempotent."""
        self._paused = True

    @enable_ki_protection
    def resume(self) -> None:
        """Give to workers again. Idempotent."""
        self._paused = False
        if self._waiting or self._closed:
            self._wake(1 if self._waiting else math.inf)

    def statistics(self) -> QueueStatistics:
        """The books at this moment."""
        age = self._now() - self._waiting[0].accepted_at if self._waiting else 0.0
        depth = len(self._waiting)
        return QueueStatistics(
            paused=self._paused,
            capacity=self.capacity,
            oldest=0.0 if math.isnan(age) else age,
            blocked=len(self._putters),
            depth=depth,
            in_hand=self._accepted - depth - sum(self._settled.values()) - self._left,
            accepted=self._accepted,
            done=self._settled[Outcome.DONE],
            discarded=self._settled[Outcome.DISCARDED],
            dead=self._settled[Outcome.DEAD],
            returned=self._settled[Outcome.RETURNED],
            left=self._left,
            dropped=self._dropped,
            retried=self._retried,
        )

    def dead_letters(self) -> tuple[DeadLetter[T], ...]:
        """The last 1,000 dead letters that no `on_dead` took, oldest first."""
        return tuple(self._dead_letters)

    # -- for workers -------------------------------------------------------------------

    def attach(self) -> None:
        """Some workers are to consume."""
        self._consumers += 1
        self._now = trio.lowlevel.current_clock().current_time  # half the price of asking Trio

    def detach(self) -> bool:
        """Some workers have ended for good; with the last of them the queue is closed.

        What is waiting then is left.

        Returns: whether these were the last.
        """
        self._consumers -= 1
        if self._consumers:
            return False
        self.close()
        while self.leave() is not None:
            pass
        return True

    def leave(self) -> Job[T] | None:
        """Book the item at the head as left; None when there is none."""
        if not self._waiting:
            return None
        self._left += 1
        job = self._waiting.popleft()
        self._let_go_on()
        return job

    def feed(self, feeder: str) -> None:
        """Somebody is to put items, who will say when there are no more."""
        self._feeders.add(feeder)

    def fed(self, feeder: str) -> None:
        """One of those has no more; after the last, the queue is closed."""
        self._feeders.discard(feeder)
        if not self._feeders:
            self.close()

    @enable_ki_protection
    async def take(self) -> Job[T]:
        """The next job, as soon as there is one; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed and is empty.

        Cancellation: a take that is cancelled has not taken anything.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (job := self.take_nowait()) is None:
            task = trio.lowlevel.current_task()
            self._takers[task] = None

            def abort(_: RaiseCancelT, task: Task = task) -> Abort:
                del self._takers[task]
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
            self._waking -= 1
        if self._takers and self._waiting:
            self._wake(2)
        return job

    @enable_ki_protection
    def take_nowait(self) -> Job[T] | None:
        """The next job, or None if there is none now; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed and is empty.
        """
        if not self._waiting:
            if self._closed:
                raise trio.EndOfChannel
            return None
        if self._paused:
            return None
        job = self._waiting.popleft()
        if self._putters or self._closed:
            self._let_go_on()
        return job

    def _let_go_on(self) -> None:
        """An item was taken: let those go on who waited for that."""
        if self._putters and len(self._waiting) < self.capacity:
            task = next(iter(self._putters))
            self._offer(self._putters.pop(task))
            trio.lowlevel.reschedule(task)
        elif self._closed and not self._waiting:
            self._wake(math.inf)  # there is nothing to come for the workers that wait

    @enable_ki_protection
    def release(self, *jobs: Job[T]) -> None:
        """Put jobs back to the head that were taken and not begun."""
        self._waiting.extendleft(reversed(jobs))
        if not self._paused:
            self._wake(1)

    def settle(self, job: Job[T], outcome: Outcome) -> None:
        """Book the outcome of a job that was taken."""
        self._settled[outcome] += 1

    def count_retry(self) -> None:
        """Book a further attempt."""
        self._retried += 1

    def keep(self, letter: DeadLetter[T]) -> None:
        """Remember a dead letter that nobody else takes."""
        self._dead_letters.append(letter)

    def hold(self, job: Job[Any]) -> AbstractContextManager[object]:
        """A block around the work at a job, which nobody else can get."""
        return nullcontext()

    def postpone(self, job: Job[Any], delay: float) -> bool:
        """No: a job that waits for its next attempt stays in its worker's hand."""
        return False


def _now() -> float:
    """Seconds on Trio's clock; NaN where there is none, before and after `trio.run`."""
    try:
        return trio.current_time()
    except RuntimeError:
        return math.nan
