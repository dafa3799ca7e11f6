"""Several jobs as one, whose item is the list of theirs."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import trio
from attrs import validators

from ._job import Job
from ._source import Source

T = TypeVar("T")


@attrs.frozen
class Batch:
    """Hand over lists of items.

    Args:
        size: so many at most; ≥ 1.
        within: seconds to wait for more after the first; ≥ 0. With 0 a batch is what is there.
    """

    size: int = attrs.field(validator=[validators.instance_of(int), validators.ge(1)])
    within: float = attrs.field(
        default=0.0, kw_only=True, converter=float, validator=validators.ge(0)
    )


class Gatherer(Generic[T]):
    """Gathers jobs into batches. A stop ends the wait for more: a batch is done as it is then.

    Args:
        batch: how many, and how long to wait for them.
        source: where they come from.
    """

    __slots__ = ("_batch", "_gathering", "_source")

    def __init__(self, batch: Batch, source: Source[T]) -> None:
        self._batch = batch
        self._source = source
        self._gathering: set[trio.CancelScope] = set()

    async def gather(self, first: Job[T]) -> Job[list[T]]:
        """The batch that begins with a job.

        Cancellation: the jobs are put back.
        """
        parts = [first]
        try:
            with trio.CancelScope(relative_deadline=self._batch.within) as scope:
                self._gathering.add(scope)
                try:
                    await self._gather_into(parts)
                finally:
                    self._gathering.discard(scope)
        except BaseException:
            self._source.release(*parts)
            raise
        items = [job.item for job in parts]
        failed = max(job.failed for job in parts)
        return Job(first.source, first.number, items, failed=failed, parts=parts)

    async def _gather_into(self, parts: list[Job[T]]) -> None:
        try:
            while len(parts) < self._batch.size:
                job = self._source.take_nowait()
                if job is None:
                    if not self._batch.within:
                        return
                    job = await self._source.take()
                parts.append(job)
        except trio.EndOfChannel:
            pass  # there are no more

    async def heed_stops(self) -> None:
        """End all waits for more when this is cancelled, as it is by a stop."""
        try:
            await trio.sleep_forever()
        finally:
            for scope in self._gathering:
                scope.cancel()
