"""Where tasks stand: all of those of a run, and what each of them waits on."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from inspect import getfile
from pathlib import Path
from types import CodeType

import trio
from trio.lowlevel import Task

_TRIO = str(Path(getfile(trio)).parent)
_OURSELVES = str(Path(__file__).parents[1])


def all_tasks() -> Iterator[Task]:
    """The tasks of this run, but for those that Trio has for itself."""
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        if not is_trios_own(task):
            yield task
        for nursery in task.child_nurseries:
            todo += nursery.child_tasks


def is_trios_own(task: Task) -> bool:
    """Whether Trio itself has started a task, to run the others."""
    code = code_of(task)
    return code is not None and code.co_filename.startswith(f"{_TRIO}/_core/")


def is_frameworks(task: Task) -> bool:
    """Whether a task is one with which this package does its own work, at this moment."""
    last = [code for code in codes(task) if not code.co_filename.startswith(_TRIO)][-1:]
    return not last or last[0].co_filename.startswith(_OURSELVES)


def codes(task: Task) -> Iterator[CodeType]:
    """The code of each of the frames of a task, the outermost first."""
    for frame, _ in task.iter_await_frames():
        yield frame.f_code


def where(task: Task) -> str:
    """What a task waits on: the call into Trio, and the line of the program that makes it."""
    line = called = ""
    for frame, number in task.iter_await_frames():
        code = frame.f_code
        if code.co_filename.startswith(_TRIO):
            called = called or code.co_name
            continue
        called = ""
        source = linecache.getline(code.co_filename, number).strip()
        line = f"{Path(code.co_filename).name}:{number} in {code.co_name}: {source}"
    return f"{task.name} waits on {called or 'something of its own'} at {line or 'no line'}"


def code_of(task: Task) -> CodeType | None:
    """The code that a task was started with, if it is Python's."""
    code: object = getattr(task.coro, "cr_code", None)
    return code if isinstance(code, CodeType) else None
