"""`probe`: whether a running application is alive, or ready, for who has neither shell nor curl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._run import admin_address, refuse

if TYPE_CHECKING:
    from ..admin import Bind
    from ._ask import Question


@click.command()
@click.argument("question", type=click.Choice(["live", "ready"]))
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Such as 127.0.0.1:8765 or unix:/run/admin.sock. Default: [admin] bind of CONFIG.",
)
@click.option(
    "--within",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    metavar="SECONDS",
    help="How long to wait for each step of the answer. Default: 5.",
)
def probe(question: Question, config: Path | None, *, address: str | None, within: float) -> int:
    """Ask a running application whether it is live or ready; exit with 0 if so, and else with 1.

    It is found by its configuration file, CONFIG, or by its address.
    """
    from ..errors import ConfigError
    from ._ask import ask

    if (config is None) == (address is None):
        raise click.UsageError("either a configuration file or --address is needed")
    try:
        bind = _bind(address) if config is None else _configured_bind(config)
    except ConfigError as error:
        return refuse(error.problems)
    answer = ask(question, bind, within=within)
    click.echo(answer.text)
    return 0 if answer.ok else 1


def _bind(address: str | None) -> Bind:
    from ..admin import Bind

    try:
        return Bind.parse(address or "")
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _configured_bind(config: Path) -> Bind:
    bind = admin_address(config)
    if bind is None:
        raise click.UsageError(f"{config} has no [admin] table, so that nothing answers")
    return bind
