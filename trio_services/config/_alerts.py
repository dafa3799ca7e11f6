"""Those whom a configuration wants to be told of troubles."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError
from ..secrets import Secret
from ..supervision import Child
from ..telemetry import AlertTarget, Watched, alerting, open_sink
from ._problems import Problem
from ._schema import Configuration

Companion = Callable[[Watched], Child]


def find_alerts(configuration: Configuration) -> Companion | None:
    """What tells those of a configuration of troubles; None if there are none.

    Args:
        configuration: from `load`.

    Raises:
        ConfigError: an address is not one that can be written to.
    """
    targets: list[AlertTarget] = []
    lines: list[str] = []
    for name, table in configuration.tables.alerts.items():
        try:
            url = table.url if isinstance(table.url, Secret) else Secret(table.url)
            target = AlertTarget(name, url, table.on)
            open_sink(target.url)
        except ValueError as error:
            problem = Problem(("alerts", name, "url"), str(error))
            lines.append(configuration.origins.line(problem))
        else:
            targets.append(target)
    if lines:
        raise ConfigError(lines)
    return alerting(targets) if targets else None
