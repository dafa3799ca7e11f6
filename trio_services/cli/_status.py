"""`status`: how a running application is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..admin import Bind


@click.command()
@click.argument("where")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def status(where: str, *, as_json: bool) -> int:
    """Tell how a running application is: its services and its queues.

    WHERE is its configuration file, or its admin address, such as 127.0.0.1:8765 or
    unix:run/admin.sock.
    """
    from ._client import Unanswered, fetch

    try:
        told = fetch(_bind(where), "/api/v1/status")
    except Unanswered as error:
        click.echo(f"trio-services status: {error}", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(told))
    else:
        for line in _lines(told):  # from elsewhere, and not to fool a terminal
            click.echo("".join(c if c.isprintable() else "?" for c in line))
    return 0


def _bind(where: str) -> Bind:
    from ..admin import Bind
    from ..errors import ConfigError
    from ._run import admin_address

    if Path(where).is_file():
        try:
            bind = admin_address(Path(where))
        except ConfigError as error:
            for line in error.problems:
                click.echo(line, err=True)
            raise click.exceptions.Exit(2) from error
        if bind is None:
            raise click.UsageError(f"{where} has no [admin] bind, so nobody can ask")
        return bind
    try:
        return Bind.parse(where)
    except ValueError as error:
        raise click.UsageError(f"{where!r} is neither a file nor an address: {error}") from error


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    services = list(_walk(told["services"], 0))
    widest = max(len(name) for name, _ in services)
    for name, one in services:
        notes = [one["health"]["reason"]] if one["health"]["reason"] else []
        if one["restarts"]:
            notes.append(f"restarts: {one['restarts']}")
        if one["waits_on"]:
            notes.append(f"waits for {' and '.join(one['waits_on'])}")
        line = f"{name:<{widest}}  {one['state'].replace('_', ' '):<11}  {one['health']['status']}"
        yield "; ".join([line, *notes])
    for name, books in told["queues"].items():
        held = "paused, " if books["paused"] else ""
        yield (
            f"queue {name}: {held}{books['depth']} of {books['capacity']} waiting, "
            f"{books['in_hand']} in hand, {books['done']} done, {books['dead']} dead"
        )


def _walk(one: Mapping[str, Any], depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "  " * depth + one["name"].rpartition("/")[2], one
    for child in one["children"]:
        yield from _walk(child, depth + 1)
