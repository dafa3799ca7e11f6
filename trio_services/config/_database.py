"""The database that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ..errors import ConfigError
from ._constraints import EMBEDDED, check_database_url
from ._problems import Problem
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


def find_database(
    configuration: Configuration, environment: Mapping[str, str], purpose: str
) -> Database | None:
    """The database of a configuration; None if it has none.

    Args:
        configuration: from `load`.
        environment: where variables are looked up.
        purpose: what others are told who find an embedded server's directory taken.

    Raises:
        ConfigError: its URL cannot be had, or is not one.
    """
    table = configuration.tables.database
    if table is None:
        return None
    try:
        url = table.url.read(environment)
        check_database_url(url)
    except ValueError as error:
        line = configuration.origins.line(Problem((NAME, "url"), str(error)))
        raise ConfigError([line]) from error
    if not url.startswith(EMBEDDED):
        return Database(url)
    from ..pg import EmbeddedServer  # psycopg takes a while: only for who needs it

    folder = configuration.source.absolute().parent
    server = EmbeddedServer(folder / Path(url.removeprefix(EMBEDDED)), purpose=purpose)
    return Database(server.url, server)
