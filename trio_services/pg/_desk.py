"""What a process has of a durable queue: jobs for its workers, and what has become of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args

import trio
from outcome import Error
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from ..errors import ServicesError
from ..lifecycle import summarize
from ..queues import DeadLetter, Job, Outcome
from ..resilience import Backoff, Retry
from ._claimed import Claimed, DurableStatistics, heard, tell
from ._claims import Claims, Later, Row
from ._payload import Codec
from ._tenure import Tenure

if TYPE_CHECKING:
    from ._pool import Pool

T = TypeVar("T")

_FAILURES_KEPT = 20


class Desk(Generic[T]):
    """The side of a durable queue that `Workers` see; see `Queue`.

    Attributes:
        retry: what is done about failed jobs by workers that say nothing about it.
        lends: its jobs can be lost to others.
    """

    def __init__(
        self, pool: Pool, name: str, lease: float, attempts: int, item: Any, codec: Codec
    ) -> None:
        self.name: str = name
        self.lease: float = lease
        self.attempts: int = attempts
        self.lends: bool = True
        self.retry: Retry | None = Retry(attempts, Backoff())
        self._pool = pool
        self._item = item
        self._codec = codec
        self._claims = Claims(name)
        self._closed = False
        self._consumers = 0
        self._waiting: deque[Claimed[T]] = deque()
        self._in_hand: set[Claimed[T]] = set()
        self._takers: dict[Task, None] = {}
        self._waking = 0  # workers that were woken, and have not looked yet
        self._tenure: Tenure | None = None
        self._claimed = self._released = self._lost = self._stale = self._retried = 0
        self._settled = dict.fromkeys(Outcome, 0)

    def _item_type(self) -> Any:
        """What the items are; `Queue[Email](…)` is known as that only when it is made."""
        if self._item is None:
            (given,) = get_args(getattr(self, "__orig_class__", None)) or (Any,)
            self._item = Any if isinstance(given, TypeVar) else given
        return self._item

    # -- for workers -------------------------------------------------------------------

    @enable_ki_protection
    def close(self) -> None:
        """Put no more items from here; the workers of this process end when none is ready.

        Other processes go on. Idempotent.
        """
        self._closed = True
        self._wake(math.inf)

    def attach(self) -> None:
        """Some workers are to consume."""
        self._consumers += 1

    def detach(self) -> bool:
        """Some workers have ended for good; whether they were the last."""
        self._consumers -= 1
        return not self._consumers

    def leave(self) -> Job[T] | None:
        """None: nothing is left, it stays in the database."""
        return None

    @enable_ki_protection
    def take_nowait(self) -> Job[T] | None:
        """The next job, or None if there is none now; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed, and no job is ready.
        """
        if self._waiting:
            job = self._waiting.popleft()
            self._in_hand.add(job)
            return job
        if self._closed and self._tenure is not None and self._tenure.exhausted:
            raise trio.EndOfChannel
        return None

    @enable_ki_protection
    async def take(self) -> Job[T]:
        """The next job, as soon as there is one; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: the queue was closed, and no job is ready.
            PoolClosed: the pool is not open.
            ServicesError: the database lacks the tables.

        Cancellation: a take that is cancelled has not taken anything.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (job := self.take_nowait()) is None:
            task = trio.lowlevel.current_task()
            self._takers[task] = None
            try:
                self._ask()
            except BaseException:
                del self._takers[task]
                raise

            def abort(_: RaiseCancelT, task: Task = task) -> Abort:
                del self._takers[task]
                if self._tenure is not None:
                    self._tenure.tell()  # it may have been the last one
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
            self._waking -= 1
        if self._takers and self._waiting:
            self._wake(2)
        return job

    def _ask(self) -> None:
        if self._tenure is None:
            tenure = Tenure(self, self._pool, self._claims)
            self._pool.start(tenure.run)
            self._tenure = tenure
        else:
            self._tenure.tell()

    def _wake(self, count: float) -> None:
        while self._takers and count:
            task = next(iter(self._takers))
            del self._takers[task]
            self._waking += 1
            trio.lowlevel.reschedule(task)
            count -= 1

    @enable_ki_protection
    def settle(self, job: Job[T], outcome: Outcome) -> None:
        """Book the outcome of a job that was taken; the database hears of it soon."""
        job = cast("Claimed[T]", job)
        self._in_hand.discard(job)
        self._settled[outcome] += 1
        if job.tenure is not self._tenure:
            self._stale += 1  # nobody is there any more to tell it
            return
        words = job.tenure.words
        if outcome is Outcome.DEAD:
            words.dead.append((job.number, tell(job.failures)))
        elif outcome is not Outcome.RETURNED:
            words.done.append(job.number)
        elif job.postponed is not None:
            words.later.append(job.postponed)
        else:
            words.back.append(job.number)
        job.tenure.tell(1)

    def release(self, *jobs: Job[T]) -> None:
        """Put jobs back to the head that were taken and not begun."""
        for job in reversed(cast("tuple[Claimed[T], ...]", jobs)):
            self._in_hand.discard(job)
            if job.tenure is self._tenure:
                self._waiting.appendleft(job)
                job.tenure.tell()
            else:
                self._lost += 1
        self._wake(1)

    def count_retry(self) -> None:
        """Nothing: a job is returned between its attempts, and that is booked."""

    def keep(self, letter: DeadLetter[T]) -> None:
        """Nothing: the database keeps every dead job, with its failures."""

    @contextmanager
    def hold(self, job: Job[Any]) -> Generator[None]:
        """A block around the work at a job, which is cancelled when the job is lost to others."""
        tenures = {cast("Claimed[Any]", part).tenure for part in job.parts or (job,)}
        with trio.CancelScope() as scope:
            for tenure in tenures:
                tenure.holds.add(scope)
                if tenure is not self._tenure:
                    scope.cancel()
            try:
                yield
            finally:
                for tenure in tenures:
                    tenure.holds.discard(scope)

    def postpone(self, job: Job[Any], delay: float) -> bool:
        """Yes: a job is returned, and taken anew after the delay, here or elsewhere."""
        self._retried += 1
        for part in cast("list[Claimed[Any]]", job.parts or [job]):
            failed = job.failed >= part.tries
            if part is not job and failed:
                part.remember(job.failures[-1])
            part.postponed = Later(part.number, delay, int(not failed), tell(part.failures))
        return True

    def statistics(self) -> DurableStatistics:
        """What this process has done for it."""
        error = None if self._tenure is None else self._tenure.error
        return DurableStatistics(
            waiting=len(self._waiting),
            in_hand=len(self._in_hand),
            claimed=self._claimed,
            done=self._settled[Outcome.DONE],
            discarded=self._settled[Outcome.DISCARDED],
            dead=self._settled[Outcome.DEAD],
            returned=self._settled[Outcome.RETURNED],
            released=self._released,
            lost=self._lost,
            stale=self._stale,
            retried=self._retried,
            error="" if error is None else str(error).strip(),
        )

    # -- for the tenure ----------------------------------------------------------------

    def wanted(self, tenure: Tenure) -> int:
        """How many workers wait for a job that is not there."""
        return max(0, len(self._takers) + self._waking - len(self._waiting))

    def known(self, tenure: Tenure) -> Collection[int]:
        """The ids of the jobs of a tenure that are here."""
        here = [job.number for job in (*self._waiting, *self._in_hand) if job.tenure is tenure]
        return here + tenure.untold()

    def is_idle(self, tenure: Tenure) -> bool:
        """Whether nobody works, and nobody wants to."""
        return not (self._takers or self._waking or self._in_hand)

    def waiting_since(self) -> float:
        """Since when the job waits that waits longest; inf if there is none."""
        return self._waiting[0].accepted_at if self._waiting else math.inf

    @enable_ki_protection
    def receive(self, tenure: Tenure, rows: list[Row], asked: int) -> None:
        """Take jobs that were claimed."""
        self._claimed += len(rows)
        now = trio.current_time()
        for row in rows:
            job = self._job(tenure, row, now)
            if job is not None:
                self._waiting.append(job)
        if self._waiting:
            self._wake(1)
        elif self._closed and tenure.exhausted:
            self._wake(math.inf)  # there is nothing to come for the workers that wait

    def _job(self, tenure: Tenure, row: Row, now: float) -> Claimed[T] | None:
        """The job of a row; None if its payload makes no sense now, and it is to be tried later."""
        failures = heard(row.errors)
        item: Any = row.payload
        broken: Exception | None = None
        try:
            item = self._codec.decode(row.payload, row.version, self._item_type())
        except Exception as error:  # noqa: BLE001 -- a payload's failure is data
            broken = error
            if row.attempt < self.attempts:  # another program may be able to read it
                failure = summarize(self.name, error)
                told = tell((*failures, failure)[-_FAILURES_KEPT:])
                delay = Backoff().delay(row.attempt)
                tenure.words.later.append(Later(row.id, delay, 0, told))
                self._settled[Outcome.RETURNED] += 1
                self._retried += 1
                return None
        return Claimed(
            self.name,
            row.id,
            item,
            accepted_at=now,
            failed=row.attempt - 1,
            failures=failures,
            broken=broken,
            tenure=tenure,
            tries=row.attempt,
        )

    @enable_ki_protection
    def recall(self, tenure: Tenure, until: float) -> list[int]:
        """Take back the jobs that have been waiting for a worker since before a time; their ids."""
        recalled: list[int] = []
        while self._waiting and self._waiting[0].accepted_at <= until:
            recalled.append(self._waiting.popleft().number)
        self._released += len(recalled)
        return recalled

    def count_stale(self, count: int) -> None:
        """Book words about jobs that were others' already."""
        self._stale += count

    @enable_ki_protection
    def ended(self, tenure: Tenure, error: Exception | None) -> None:
        """It is over; what is still in hand is not this process's any more."""
        self._tenure = None
        self._lost += len(self._waiting)
        self._waiting.clear()
        if error is None:
            self._wake(math.inf)  # they ask for another
            return
        failed = ServicesError(f"queue {self.name} cannot be worked on: {error}")
        failed.__cause__ = error
        while self._takers:
            task = next(iter(self._takers))
            del self._takers[task]
            trio.lowlevel.reschedule(task, Error(failed))
