"""The database that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ..secrets import Secret
from ._constraints import EMBEDDED
from ._schema import Configuration

if TYPE_CHECKING:
    from ..pg import EmbeddedServer

NAME = "database"
"""What its service is called, and what comes after it says."""


@attrs.frozen
class Database:
    """Where an application's data is.

    Args:
        url: how clients connect; it may hold a password.
        server: the embedded server that has to run; None if another one does.
    """

    url: str = attrs.field(repr=False)
    server: EmbeddedServer | None = None


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
    if not url.startswith(EMBEDDED):
        return Database(url)
    from ..pg import EmbeddedServer  # psycopg takes a while: only for who needs it

    folder = configuration.source.absolute().parent
    server = EmbeddedServer(folder / Path(url.removeprefix(EMBEDDED)), purpose=purpose)
    return Database(server.url, server)
