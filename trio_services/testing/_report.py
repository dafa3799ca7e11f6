"""An application in words: its live tree, and what has happened in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..host import Host
from ..lifecycle import events
from ..supervision import ServiceStatistics

_EVENTS = 200
"""How many of the last events are told."""


def report(host: Host, log: Sequence[events.Event]) -> str:
    """The tree as it is now, and the events, at most the last 200."""
    lines = ["the live tree:", *_tree(host), "the log of events:"]
    if len(log) > _EVENTS:
        lines.append(f"  … {len(log) - _EVENTS} more")
    lines += [f"  {event.at:.3f} {event!r}" for event in log[-_EVENTS:]]
    return "\n".join(lines)


def _tree(host: Host) -> Iterator[str]:
    try:
        root = host.tree.statistics()
    except RuntimeError:  # it was never opened
        yield f"  {host.name} is not started"
        return
    yield from _lines(root, "  ")


def _lines(one: ServiceStatistics, indent: str) -> Iterator[str]:
    line = f"{indent}{one.name}: {one.state.replace('_', ' ')}"
    if one.restarts:
        line += f", {one.restarts} restarts"
    if one.waits_on:
        line += f", waits on {', '.join(one.waits_on)}"
    if one.failure is not None:
        line += f", last failed with {one.failure.type}: {one.failure.message}"
    yield line
    for child in one.children:
        yield from _lines(child, indent + "  ")
