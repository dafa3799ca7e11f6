"""PostgreSQL, native to Trio: psycopg's connections, cursors and adapters without asyncio."""

from ..errors import CommitUnknown as CommitUnknown
from ._block import Transaction as Transaction
from ._connection import (
    Connection as Connection,
    Pipeline as Pipeline,
    ServerCursor as ServerCursor,
    connect as connect,
)
