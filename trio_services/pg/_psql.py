"""How `psql` is told where to connect."""

from __future__ import annotations

from psycopg.pq import Conninfo


def client_environment(url: str) -> dict[str, str]:
    """What a URL says as libpq's environment variables, so that no password is on a command line.

    Raises:
        psycopg.OperationalError: it is not a URL or connection string.
    """
    options = Conninfo.parse(url.encode())
    return {
        one.envvar.decode(): one.val.decode()
        for one in options
        if one.envvar is not None and one.val is not None
    }
