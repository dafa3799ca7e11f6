"""`run`, `check` and `graph`: what begins with a configuration file."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from ..admin import Bind
    from ..config import Application, Configuration
    from ..host import Companion, Host
    from ..supervision import Child

F = TypeVar("F", bound=Callable[..., object])

_BAD_CONFIGURATION = 2
_WIDEST = 60  # characters of a value, for what follows to be in a column


def configured(command: F) -> F:
    """Give a command the file and the overrides that it takes."""
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key of the file, such as log.level=debug. May be repeated.",
    )
    file = click.argument("config", type=click.Path(path_type=Path))
    return file(overrides(command))


@click.command()
@configured
def run(config: Path, overrides: tuple[str, ...]) -> int:
    """Run the application that the file CONFIG describes.

    SIGINT or SIGTERM stops it in order; a second one at once. SIGHUP applies the file anew, as a
    change of it does by itself.
    """
    from ..config import reloading
    from ..deploy import notifying, open_notifier, telling_of_reload
    from ..errors import ConfigError
    from ..host import HostSettings, run

    try:
        configuration, application = read(config, overrides)
    except ConfigError as error:
        return refuse(error.problems)
    settings = HostSettings(stop_within=application.stop_within, log=application.log)
    if hasattr(signal, "SIGHUP"):  # which is heeded while the services run; else it would kill
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    companions = _companions(application)
    again = partial(load_file, config, overrides)
    with open_notifier(os.environ) as notifier:
        if notifier is None:
            companions.append(reloading(configuration, application, again))
        else:
            companions.append(notifying(notifier))
            around = partial(telling_of_reload, notifier)
            companions.append(reloading(configuration, application, again, around))
        return run(
            application.tree,
            config=settings,
            companions=companions,
            container=application.container,
        )


@click.command()
@configured
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--explain", "explained", is_flag=True, help="Print every value, and its origin.")
def check(config: Path, overrides: tuple[str, ...], *, as_json: bool, explained: bool) -> int:
    """Do all that `run CONFIG` does, short of starting anything.

    The code that the file names is imported, and handlers that are classes are made.
    """
    import attrs

    from ..config import explain
    from ..errors import ConfigError
    from ._summary import as_dict, as_text

    try:
        configuration, application = read(config, overrides)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": error.problems}, ensure_ascii=False))
        return refuse(error.problems)
    summary = as_dict(configuration, application)
    values = explain(configuration, application) if explained else []
    if as_json:
        more = {"values": [attrs.asdict(value) for value in values]} if explained else {}
        click.echo(json.dumps({**summary, **more}, ensure_ascii=False))
        return 0
    click.echo(as_text(summary))
    if values:
        width = min(max(len(value.line) for value in values), _WIDEST)
        click.echo("\n".join(["", *(f"{v.line:<{width}}  # {v.origin}" for v in values)]))
    return 0


@click.command()
@configured
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "dot", "mermaid"]),
    default="text",
    help="For people, for Graphviz, or for Mermaid. Default: text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def graph(config: Path, overrides: tuple[str, ...], *, form: str, as_json: bool) -> int:
    """Draw what runs, what it is responsible for, and the queues between.

    The code that the file CONFIG names is imported, as for `check`.
    """
    from ..errors import ConfigError
    from . import _graph

    try:
        drawn = _graph.graph_of(*read(config, overrides))
    except ConfigError as error:
        return refuse(error.problems)
    forms = {"text": _graph.as_text, "dot": _graph.as_dot, "mermaid": _graph.as_mermaid}
    click.echo((_graph.as_json if as_json else forms[form])(drawn))
    return 0


def read(path: Path, overrides: tuple[str, ...]) -> tuple[Configuration, Application]:
    """The configuration in a file, and the application that it describes.

    Raises:
        ConfigError: with everything that is wrong.
    """
    from ..config import build

    configuration = load_file(path, overrides)
    return configuration, build(configuration)


def load_file(path: Path, overrides: tuple[str, ...]) -> Configuration:
    from ..config import load

    return load(path, overrides=overrides, checks={"admin.bind": partial(address_of, path)})


def admin_address(path: Path) -> Bind | None:
    """Where the application that a file describes has its admin server; None for nowhere.

    Raises:
        ConfigError: with everything that is wrong.
    """
    admin = load_file(path, ()).tables.admin
    return None if admin is None else address_of(path, admin.bind)


def refuse(problems: tuple[str, ...]) -> int:
    for problem in problems:
        click.echo(problem, err=True)
    return _BAD_CONFIGURATION


def _companions(application: Application) -> list[Companion]:
    """The services around those of the application."""
    companions: list[Companion] = [] if application.alerts is None else [application.alerts]
    if application.admin is None:
        return companions
    bind = address_of(application.source, application.admin)

    def admin(host: Host) -> Child:
        from ..admin import serve_admin
        from ..supervision import Child

        # Probes have nothing in hand that a stop should wait for.
        return Child(partial(serve_admin, bind, host), name="admin", stop_within=0)

    return [*companions, admin]


def address_of(source: Path, text: str) -> Bind:
    """Where the admin server listens; a socket's path is relative to the configuration file.

    Raises:
        ValueError: in one sentence, what is wrong with the text.
    """
    from ..admin import Bind

    bind = Bind.parse(text)
    return Bind(path=str(source.absolute().parent / bind.path)) if bind.path else bind
