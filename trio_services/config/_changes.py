"""What has to be done for one application to become another one. Pure.

What is compared is what the configuration says of each part, and the secrets among its options, and
not what was made of that: functions and instances have no equality that helps. A part of which only
the policy changed goes on; so does one of which only the options changed, if it takes them live.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..supervision import Change, Child
from ..telemetry import LogSettings
from ._application import Application, Part
from ._live import Live
from ._problems import Problem
from ._schema import CHILDREN, AnyChildTable, Tables, WorkersTable

_POLICY = frozenset(
    {
        "restart",
        "backoff",
        "breaker",
        "start_within",
        "stop_within",
        "stale_after",
        "critical",
        "retry_start",
    }
)
_RELOADED = frozenset({"host", "log", "queues", *CHILDREN})
"""The tables that are looked into; any other one is fixed."""
_FIXED = ("name", "stop_within", "imports", "container", "max_restarts", "watch")


@attrs.frozen
class Plan:
    """How to get from one application to another.

    Args:
        change: of the tree.
        undo: of it, when that fails.
        counts: pools of workers that get another number of them.
        live: options that are replaced while their services run.
        log: what is logged from now on; None where that stays.
        became: the application that there is then.
        added, removed, restarted, adjusted: names, for people.
    """

    change: Change
    undo: Change
    counts: Mapping[str, int]
    live: Sequence[tuple[Live[Any], object]]
    log: LogSettings | None
    became: Application
    added: tuple[str, ...]
    removed: tuple[str, ...]
    restarted: tuple[str, ...]
    adjusted: tuple[str, ...]


def fixed(before: Tables, after: Tables) -> Iterator[Problem]:
    """What was changed that cannot be while the application runs."""

    def problem(*key: str) -> Problem:
        return Problem(key, "cannot change while the application runs; restart the process")

    for name in _FIXED:
        if getattr(before.host, name) != getattr(after.host, name):
            yield problem("host", name)
    for field in attrs.fields(Tables):
        if field.name not in _RELOADED and getattr(before, field.name) != getattr(
            after, field.name
        ):
            yield problem(field.name)
    for name, queue in after.queues.items():
        if before.queues.get(name, queue) != queue:
            yield problem("queues", name)
    for name, workers in after.workers.items():
        if name in before.workers and before.workers[name].feeds != workers.feeds:
            yield problem("workers", name, "feeds")


def plan(before: Application, after: Application) -> Plan:
    """What has to be done.

    Args:
        before: what runs.
        after: what is to run; its parts that have not changed are the same objects.
    """
    parts = dict(after.parts)
    added = [name for name in parts if name not in before.parts]
    removed = [name for name in before.parts if name not in parts]
    restarted: list[str] = []
    amended: list[str] = []
    counts: dict[str, int] = {}
    live: list[tuple[Live[Any], object]] = []
    for name, new in after.parts.items():
        old = before.parts.get(name)
        if old is None or old is new:
            continue
        if not _goes_on(old, new):
            restarted.append(name)
            continue
        parts[name] = _amended(old, new)
        amended.append(name)
        if isinstance(new.table, WorkersTable) and _differences(old.table, new.table) >= {"count"}:
            counts[name] = new.table.count
        for holder, value, options in zip(old.live, old.options, new.options, strict=True):
            if holder is not None and value != options:
                live.append((holder, options))
    started = [*added, *restarted]
    return Plan(
        change=Change(
            start=[parts[name].child for name in started],
            remove=removed,
            amend=[parts[name].child for name in amended],
        ),
        undo=Change(
            start=[before.parts[name].child for name in (*removed, *restarted)],
            remove=added,
            amend=[before.parts[name].child for name in amended],
        ),
        counts=counts,
        live=live,
        log=after.log if after.log != before.log else None,
        became=attrs.evolve(after, parts=parts),
        added=tuple(added),
        removed=tuple(removed),
        restarted=tuple(restarted),
        adjusted=tuple(amended),
    )


def _goes_on(old: Part, new: Part) -> bool:
    """Whether a part need not be started anew for what has changed of it."""
    if type(old.table) is not type(new.table):
        return False
    differences = _differences(old.table, new.table)
    if old.secrets != new.secrets:
        differences |= {"options"}
    free = set(_POLICY)
    if isinstance(old.table, WorkersTable):
        # Its breaker is one of its handler, and what isolates that has as many places as workers.
        free -= {"breaker"}
        free |= {"count"} if old.table.isolation == "task" and old.table.key is None else set()
    if old.live and None not in old.live:
        free |= {"options"}
    return differences <= free


def _differences(old: AnyChildTable, new: AnyChildTable) -> set[str]:
    names = [field.name for field in attrs.fields(type(old))]
    return {name for name in names if getattr(old, name) != getattr(new, name)}


def _amended(old: Part, new: Part) -> Part:
    """The old part with what is new of it: its code, with what that holds, stays."""
    service: Any = old.child.service
    if isinstance(new.table, WorkersTable):
        service = attrs.evolve(service, count=new.table.count)
    child: Child = attrs.evolve(new.child, service=service)
    return attrs.evolve(new, child=child, live=old.live)
