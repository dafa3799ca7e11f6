"""Work: items that wait in queues, and the one way in which jobs are run."""

from ._batches import Batch as Batch
from ._histogram import BOUNDS as BOUNDS, HistogramStatistics as HistogramStatistics
from ._job import (
    DeadLetter as DeadLetter,
    Discard as Discard,
    Job as Job,
    Outcome as Outcome,
    RetryLater as RetryLater,
    current_job as current_job,
)
from ._memory import QueueStatistics as QueueStatistics, WorkQueue as WorkQueue
from ._pool import Pool as Pool, PoolStatistics as PoolStatistics
from ._schedule import Schedule as Schedule
from ._source import Queue as Queue
from ._timetable import ScheduleStatistics as ScheduleStatistics
from ._workers import Workers as Workers
