"""The command's entry point: its group of commands, and how it ends.

Every command imports what it needs when it runs: asking for help must not start up Trio.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from .._version import __version__
from ._config import config
from ._database import db
from ._deploy import deploy
from ._probe import probe
from ._run import check, graph, run
from ._status import status

BAD_USAGE = 2
"""The exit status for bad usage and for a bad configuration."""
_INTERRUPTED = 130


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def cli() -> None:
    """Run applications of background services: supervised, stopped on time, accounted for."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"trio-services {__version__}")


cli.add_command(run)
cli.add_command(check)
cli.add_command(graph)
cli.add_command(status)
cli.add_command(config)
cli.add_command(db)
cli.add_command(deploy)
cli.add_command(probe)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit.

    Args:
        arguments: its arguments. Default: the process's.

    Raises:
        SystemExit: with status 2 and one line on standard error for bad usage; else with the
            status of the command.
    """
    try:
        status = cli.main(arguments, prog_name="trio-services", standalone_mode=False)
    except click.ClickException as error:
        click.echo(_line(error), err=True)
        sys.exit(BAD_USAGE)
    except click.Abort:  # Ctrl-C before the host was there to take it
        sys.exit(_INTERRUPTED)
    sys.exit(status or 0)


def _line(error: click.ClickException) -> str:
    """What was wrong with the command line, in one line."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "trio-services"
    message = " ".join(error.format_message().split()).removesuffix(".")
    return f"{command}: {message}; see {command} --help"
