"""What an application may leave behind when it has ended."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import attrs

from ..lifecycle import Bus, surrounding_service
from ..queues import Workers, WorkQueue
from ..supervision import Supervisor
from ._tasks import all_tasks, where

_PATIENCE = 1.0  # seconds, of real time, that a thread or a process has to go away in
_SELF = Path("/proc/self")


@attrs.frozen
class Possessions:
    """What a process has beside its memory, by names that tell them apart.

    Child processes and sockets are seen only where there is a ``/proc``.
    """

    things: frozenset[str]

    @classmethod
    def taken(cls) -> Possessions:
        """Those of now."""
        return cls(frozenset((*_threads(), *_children(), *_sockets())))

    def new(self) -> list[str]:
        """Those that have come since, and do not go away."""
        # A socket is closed with the last reference to it, which may be in a cycle.
        gc.collect()
        until = time.monotonic() + _PATIENCE
        while (found := self.taken().things - self.things) and time.monotonic() < until:
            time.sleep(0.01)  # nothing of the run may go on meanwhile, nor virtual time
        return sorted(found)


def tasks_left(bus: Bus) -> Iterator[str]:
    """The tasks that belong to services which publish on a bus."""
    for task in all_tasks():
        # A copy, since the context of the task that asks is in use.
        life = task.context.copy().run(surrounding_service)
        if life is not None and life.bus is bus:
            yield f"a task of {life.name}: {where(task)}"


def books_open(queues: Iterable[WorkQueue[object]]) -> Iterator[str]:
    """The queues of which an item has gone missing, or is still with a worker."""
    for queue in queues:
        books = queue.statistics()
        settled = books.done + books.discarded + books.dead + books.returned + books.left
        if books.in_hand or books.accepted != settled + books.depth:
            yield f"open books of queue {queue.name}: {books}"


def queues_of(tree: Supervisor) -> list[WorkQueue[object]]:
    """The queues in memory that a tree has workers for."""
    found: dict[int, WorkQueue[object]] = {}
    todo = [tree]
    while todo:
        for child in todo.pop().children:
            if isinstance(child.service, Supervisor):
                todo.append(child.service)
                continue
            queue: object = getattr(child.service, "queue", None)
            if isinstance(child.service, Workers) and isinstance(queue, WorkQueue):
                books = cast("WorkQueue[object]", queue)
                found[id(books)] = books
    return list(found.values())


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        # Trio keeps idle threads for a while; one at work bears the name of its work.
        if not thread.name.startswith("Trio thread "):
            yield f"thread {thread.name} ({thread.ident})"


def _children() -> Iterator[str]:
    for file in _SELF.glob("task/*/children"):
        for number in file.read_text().split():
            yield f"child process {number} ({_command(number)})"


def _command(number: str) -> str:
    try:
        return (Path("/proc") / number / "comm").read_text().strip()
    except OSError:  # it has just ended
        return "ended"


def _sockets() -> Iterator[str]:
    for link in _SELF.glob("fd/*"):
        try:
            target = os.readlink(link)  # noqa: PTH115 -- it names no path
        except OSError:  # the one through which they are listed
            continue
        if target.startswith("socket:"):
            yield target
