"""Those whom a configuration wants to be told of troubles."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import ConfigError
from ..secrets import Secret
from ..supervision import Child
from ..telemetry import AlertTarget, Watched, alerting, open_sink
from ._problems import Problem
from ._schema import Configuration

Companion = Callable[[Watched], Child]


def find_alerts(configuration: Configuration, environment: Mapping[str, str]) -> Companion | None:
    """What tells those of a configuration of troubles; None if there are none.

    Args:
        configuration: from `load`.
        environment: where variables are looked up.

    Raises:
        ConfigError: an address cannot be had, or is not one.
    """
    targets: list[AlertTarget] = []
    lines: list[str] = []
    for name, table in configuration.tables.alerts.items():
        try:
            target = AlertTarget(name, Secret(table.url.read(environment)), table.on)
            open_sink(target.url)
        except ValueError as error:
            problem = Problem(("alerts", name, "url"), str(error))
            lines.append(configuration.origins.line(problem))
        else:
            targets.append(target)
    if lines:
        raise ConfigError(lines)
    return alerting(targets) if targets else None
