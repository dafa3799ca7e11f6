"""Work: items that wait in queues, and the one way in which jobs are run."""

from ._job import (
    DeadLetter as DeadLetter,
    Discard as Discard,
    Job as Job,
    Outcome as Outcome,
    current_job as current_job,
)
from ._memory import QueueStatistics as QueueStatistics, WorkQueue as WorkQueue
from ._schedule import Schedule as Schedule
from ._workers import Workers as Workers
