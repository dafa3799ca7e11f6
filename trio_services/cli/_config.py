"""`config`: about the configuration file, without one."""

from __future__ import annotations

import json

import click


@click.group(no_args_is_help=False)
def config() -> None:
    """Tell about the configuration file."""


@config.command()
def schema() -> None:
    """Print a JSON Schema of the file, by which editors complete and check it."""
    from ..config import json_schema

    click.echo(json.dumps(json_schema(), ensure_ascii=False, indent=2))
