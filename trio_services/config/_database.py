"""The database that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from ..secrets import Secret
from ..supervision import Child, Supervisor
from ._constraints import EMBEDDED
from ._schema import Configuration

if TYPE_CHECKING:
    from ..pg import EmbeddedServer, Pool

_SERVER_START = 300.0  # seconds: the first start after a crash may have much to recover
_SERVER_STOP = 5.0  # seconds, of which it needs a tenth of one
_POOL_STOP = 1.0
_MIGRATIONS_START = 3600.0  # seconds: a new index of a large table takes its time

NAME = "database"
"""What its service is called, and what comes after it says."""


@attrs.frozen
class Database:
    """Where an application's data is.

    Args:
        url: how clients connect; it may hold a password.
        pool: of connections to it.
        server: the embedded server that has to run; None if another one does.
        migrations: the folder of the application's files; None if it has none.
    """

    url: str = attrs.field(repr=False)
    pool: Pool
    server: EmbeddedServer | None = None
    migrations: Path | None = None

    def verify(self) -> None:
        """See, as far as that is possible before anything starts, that it can be used.

        Raises:
            EmbeddedUnavailable: the server cannot be run.
        """
        if self.server is not None:
            self.server.verify()

    def read_migrations(self) -> None:
        """See that the migrations can be used.

        Raises:
            SchemaMismatch: the folder or a file in it cannot be used.
        """
        from ..pg import read_migrations

        if self.migrations is not None:
            read_migrations(self.migrations)

    @property
    def child(self) -> Child:
        """What runs: the server, if it is ours, then the pool, and then what is to be migrated."""
        children = [
            Child(
                self.pool,
                name="pool",
                after=() if self.server is None else ("server",),
                stop_within=_POOL_STOP,
            )
        ]
        # What is wrong with a server or a migration does not get better by trying again.
        if self.server is not None:
            server = Child(
                self.server,
                name="server",
                start_within=_SERVER_START,
                stop_within=_SERVER_STOP,
                retry_start=False,
            )
            children.insert(0, server)
        if self.migrations is not None:
            migrations = Child(
                self._migrate,
                name="migrations",
                after=("pool",),
                start_within=_MIGRATIONS_START,
                stop_within=0,
                retry_start=False,
            )
            children.append(migrations)
        return Child(Supervisor(NAME, children), name=NAME)

    async def _migrate(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Apply what has not been applied yet; ready when that is done."""
        from ..pg import migrate

        await migrate(self.url, self.migrations)
        task_status.started()


def find_database(configuration: Configuration, purpose: str) -> Database | None:
    """The database of a configuration; None if it has none.

    Args:
        configuration: from `load`.
        purpose: what others are told who find an embedded server's directory taken.
    """
    table = configuration.tables.database
    if table is None:
        return None
    url = table.url.reveal() if isinstance(table.url, Secret) else table.url
    from ..pg import EmbeddedServer, Pool  # psycopg takes a while: only for who needs it

    folder = configuration.source.absolute().parent
    server = None
    if url.startswith(EMBEDDED):
        server = EmbeddedServer(folder / Path(url.removeprefix(EMBEDDED)), purpose=purpose)
        url = server.url
    migrations = None if table.migrations is None else folder / table.migrations
    return Database(url, Pool(url, name=NAME), server, migrations)
