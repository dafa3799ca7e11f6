"""`db migrate` and `db status`: what the database has of the schema that the code needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ._target import Target, where

if TYPE_CHECKING:
    from ..pg import Applied, Migration

T = TypeVar("T")

_folder = click.option(
    "--sql",
    "folder",
    type=click.Path(path_type=Path),
    help="The folder of the application's own files, such as 0001_orders.sql. Default: that of "
    "`[database] migrations`, where WHERE is a configuration file.",
)


@click.command()
@where
@_folder
def migrate(target: Target, folder: Path | None) -> None:
    """Apply what has not been applied to the database yet.

    WHERE is a directory, a postgresql:// URL or a configuration file. On a directory a server is
    run meanwhile, if none runs.
    """
    from ..pg import migrate, read_migrations

    folder = folder or target.migrations
    read_migrations(folder)  # before a server is started for nothing
    applied = _with(target, lambda url: migrate(url, folder))
    for migration in applied:
        click.echo(f"applied {migration.file} of {migration.source}")
    if not applied:
        click.echo("nothing to apply")


@click.command()
@where
@_folder
def status(target: Target, folder: Path | None) -> int:
    """Print what was applied to the database, and what was not; status 1 if anything was not.

    WHERE is as for `db migrate`.
    """
    from ..pg import applied_migrations, plan, read_migrations

    migrations = read_migrations(folder or target.migrations)
    new = target.server is not None and target.server.is_new
    applied = [] if new else _with(target, applied_migrations)
    pending = plan(migrations, applied)
    for one in applied:
        click.echo(_line(one, f"applied {one.at:%Y-%m-%d %H:%M:%S %Z}"))
    for migration in pending:
        click.echo(_line(migration, "to be applied"))
    return 1 if pending else 0


def _line(one: Applied | Migration, state: str) -> str:
    return f"{one.source:<13}  {one.file}: {state}"


def _with(target: Target, work: Callable[[str], Awaitable[T]]) -> T:
    """What some work with a database results in, for which a server is run if there has to be."""
    import trio

    from ..supervision import Child, Supervisor, open_supervisor

    async def main() -> T:
        if target.server is None:
            return await work(target.url)
        target.server.verify()
        child = Child(target.server, name="database", retry_start=False)
        async with open_supervisor(Supervisor("db", [child])):
            return await work(target.url)

    return trio.run(main)
