"""What a configuration says, made ready to be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ..queues import WorkQueue
from ..secrets import Secret
from ..supervision import Child, Supervisor
from ..telemetry import LAST_WORD_WITHIN, LogSettings
from ._alerts import Companion
from ._database import Database
from ._injection import Injection
from ._live import Live
from ._schema import AnyChildTable, Tables
from ._secrets import Place

if TYPE_CHECKING:
    from ..di import Container


@attrs.frozen
class Part:
    """A service, pool of workers or schedule of an application.

    Args:
        table: what the configuration says of it.
        child: what is run.
        options: what its code gets as `options`; several where the table names several pieces of
            code that ask for them.
        live: for each of these, what holds them where they may change; else None.
        secrets: those among its options, by where they were.
        injected: its options by their classes, where something that it needs asks for these.
    """

    table: AnyChildTable
    child: Child
    options: Sequence[object] = attrs.field(repr=False)
    live: Sequence[Live[Any] | None] = attrs.field(repr=False)
    secrets: Mapping[Place, Secret]
    injected: Mapping[type[object], object] = attrs.field(repr=False)


@attrs.frozen
class Application:
    """What a configuration says, ready to be run, once.

    Args:
        tree: the services, pools of workers and schedules.
        queues: the queues between them, by name.
        stop_within: seconds in which a stop has ended.
        log: what is logged, and how.
        admin: where the admin server listens; None for nowhere.
        database: where the data is; None if there is none.
        alerts: the companion that tells others of troubles; None if there is none.
        source: the file that all this comes from.
        tables: what the configuration says.
        parts: the services, pools of workers and schedules, by name.
        injection: what gives code what it asks for by type; None if there is no container.
    """

    tree: Supervisor
    queues: Mapping[str, WorkQueue[Any]]
    stop_within: float
    log: LogSettings
    admin: str | None
    database: Database | None
    alerts: Companion | None
    source: Path
    tables: Tables = attrs.field(repr=False)
    parts: Mapping[str, Part] = attrs.field(repr=False)
    injection: Injection | None = attrs.field(repr=False)

    @property
    def container(self) -> Container | None:
        """What services and jobs get what they ask for by type from."""
        return None if self.injection is None else self.injection.container

    @property
    def worst_stop(self) -> float:
        """Seconds that a stop takes at worst."""
        return worst_stop_of(self.tree, self.injection, tells=self.alerts is not None)


def worst_stop_of(tree: Supervisor, injection: Injection | None, *, tells: bool) -> float:
    """Seconds that a stop takes at worst, with what comes after the services.

    Args:
        tree: the services.
        injection: what has to be disposed of.
        tells: whether somebody is told of troubles, also of the last ones.
    """
    dispose = 0.0 if injection is None else injection.container.dispose_within
    return tree.worst_stop + dispose + (LAST_WORD_WITHIN if tells else 0.0)
