"""Which database a command is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from ..pg import EmbeddedServer

F = TypeVar("F", bound=Callable[..., object])

_URLS = ("postgresql://", "postgres://")


class Target(NamedTuple):
    """A database.

    Args:
        text: as it was given.
        url: where it answers.
        server: what serves it, if that is for us to run.
        migrations: the folder of the application's own files, if a configuration names one.
    """

    text: str
    url: str
    server: EmbeddedServer | None
    migrations: Path | None = None

    def embedded(self) -> EmbeddedServer:
        """Its server.

        Raises:
            click.UsageError: it has none of its own.
        """
        if self.server is None:
            raise click.UsageError("this takes a directory; that URL's server is not ours to run")
        return self.server


def _target(context: click.Context, parameter: click.Parameter, text: str) -> Target:
    from ..pg import EmbeddedServer

    if text.startswith(_URLS):
        return Target(text, text, None)
    purpose = f"trio-services db {context.info_name}"
    if Path(text).is_file():
        return _configured(text, purpose)
    server = EmbeddedServer(text.removeprefix("embedded:"), purpose=purpose)
    return Target(text, server.url, server)


def _configured(text: str, purpose: str) -> Target:
    """The database of a configuration file."""
    from ..config import find_database, load
    from ..errors import ConfigError

    try:
        database = find_database(load(text), purpose)
    except ConfigError as error:
        for line in error.problems:
            click.echo(line, err=True)
        raise click.exceptions.Exit(2) from error
    if database is None:
        raise click.UsageError(f"{text} has no [database] table")
    return Target(text, database.url, database.server, database.migrations)


def where(command: F) -> F:
    """Give a command the database that it is about."""
    return click.argument("target", metavar="WHERE", callback=_target)(command)
