"""Where the tasks of a service stand, for the eyes of an operator."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterator

from trio.lowlevel import Task

_OURSELVES = os.path.dirname(os.path.dirname(__file__)) + os.sep


def stack_of(task: Task) -> str:
    """The frames of a task and of the tasks in its nurseries, innermost line last."""
    return "\n".join(_lines(task, ""))


def _lines(task: Task, indent: str) -> Iterator[str]:
    yield f"{indent}task {task.name}"
    ours = True
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        # The supervisor's own frames around the service say nothing about it.
        ours = ours and code.co_filename.startswith(_OURSELVES)
        if ours:
            continue
        yield f'{indent}  File "{code.co_filename}", line {line}, in {code.co_name}'
        if source := linecache.getline(code.co_filename, line).strip():
            yield f"{indent}    {source}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, indent + "  ")
