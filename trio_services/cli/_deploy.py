"""`deploy`: files for those who start, watch and stop an application."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ._run import address_of, configured, read, refuse


@click.group(no_args_is_help=False)
def deploy() -> None:
    """Print files by which an application is deployed."""


@deploy.command()
@configured
@click.option("--user", metavar="NAME", help="Who runs it. Default: one that systemd makes up.")
@click.option(
    "--writable",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A directory to which the application writes. May be repeated.",
)
def systemd(
    config: Path, overrides: tuple[str, ...], *, user: str | None, writable: tuple[Path, ...]
) -> int:
    """Print a hardened unit that runs CONFIG, with time-outs that agree with its plan.

    It runs with the interpreter that this command runs with. The code that the file names is
    imported, as for `check`.
    """
    from ..deploy import Unit
    from ..errors import ConfigError

    try:
        _, application = read(config, overrides)
    except ConfigError as error:
        return refuse(error.problems)
    folders = [path.absolute() for path in writable]
    if application.database is not None and application.database.server is not None:
        data = Path(application.database.server.path)
        folders.append(data if data.exists() else data.parent)
    if application.admin is not None:
        socket = address_of(application.source, application.admin).path
        folders += [Path(socket).parent] if socket else []
    if folders and user is None:
        raise click.UsageError(f"it writes to {folders[0]}: give the --user to whom that belongs")
    words = [word for override in overrides for word in ("--set", override)]
    try:
        unit = Unit(
            name=application.tree.name,
            command=[sys.executable, "-m", "trio_services", "run", str(config.absolute()), *words],
            folder=config.absolute().parent,
            start_within=application.tree.worst_start,
            stop_within=application.stop_within,
            user=user,
            writable=list(dict.fromkeys(folders)),
        )
    except ValueError as error:
        raise click.BadParameter(f"{user!r} is no user's name", param_hint="--user") from error
    click.echo(str(unit), nl=False)
    return 0
