"""PostgreSQL, native to Trio: psycopg's connections, cursors and adapters without asyncio."""

from psycopg import Error as Error, Notify as Notify

from ..errors import (
    BadPayload as BadPayload,
    CommitUnknown as CommitUnknown,
    LeadershipLost as LeadershipLost,
    PoolClosed as PoolClosed,
    PoolTimeout as PoolTimeout,
    TooManyRequests as TooManyRequests,
)
from ._block import Pipeline as Pipeline, ServerCursor as ServerCursor, Transaction as Transaction
from ._claimed import DurableStatistics as DurableStatistics
from ._connection import (
    Connection as Connection,
    connect as connect,
)
from ._directory import Holder as Holder
from ._drive import CLEAN_UP as CLEAN_UP
from ._embedded import EmbeddedServer as EmbeddedServer
from ._installation import find_psql as find_psql
from ._leader import Term as Term, leadership as leadership
from ._leader_only import LeaderOnly as LeaderOnly, current_term as current_term
from ._listen import Gap as Gap, Notifications as Notifications, listen as listen
from ._migrate import (
    Applied as Applied,
    Migration as Migration,
    applied_migrations as applied_migrations,
    migrate as migrate,
    plan as plan,
    read_migrations as read_migrations,
)
from ._pool import Pool as Pool, open_pool as open_pool
from ._provide import provide as provide
from ._psql import client_environment as client_environment
from ._queue import (
    Depth as Depth,
    Queue as Queue,
)
from ._statistics import PoolStatistics as PoolStatistics
from ._stock import AnyConnection as AnyConnection
from ._transaction import Isolation as Isolation
