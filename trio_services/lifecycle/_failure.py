"""What to remember of an exception: a few words, and none of its frames.

An exception keeps its traceback alive, and that every local variable on the way: 20 kB each, on
a service that fails every second for a month. So a summary is taken by hand at once, and the
exception is let go.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import cast

import trio

from ..errors import Failure, RestartLimitExceeded, ServicesError, StopFailed

_MESSAGE_LENGTH = 1000
# The roots of installed packages and of the standard library: code there is not the user's.
# Nor is ours, wherever it was installed.
_LIBRARIES = tuple(
    os.path.dirname(path) + os.sep
    for path in (os.__file__, os.path.dirname(trio.__file__), os.path.dirname(__file__))
)


def summarize(service: str, error: BaseException) -> Failure:
    """The failure of a service: the cause first, collateral cancellations set aside.

    A group that holds a single error is told as that error; one with several as the first of
    them and the number of the others.
    """
    leaves = list(leaves_of(error)) or [error]
    cause = leaves[0]
    try:
        message = str(cause)
    except Exception:  # noqa: BLE001 -- a broken __str__ must not hide the failure
        message = "<its message cannot be shown>"
    if len(message) > _MESSAGE_LENGTH:
        message = message[:_MESSAGE_LENGTH] + "…"
    if len(leaves) > 1:
        message += f" (and {len(leaves) - 1} more)"
    return Failure(service, type(cause).__name__, message, _where(cause), trio.current_time())


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The single errors in a group, in order, or the error itself; without cancellations."""
    todo = [error]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += reversed(cast("BaseExceptionGroup[BaseException]", error).exceptions)
        elif not isinstance(error, trio.Cancelled):
            yield error


def asks_for_exit(error: BaseException) -> bool:
    """Whether an error is about the whole program, as `SystemExit` and `KeyboardInterrupt` are.

    Other libraries' own cancellations are none of that, whatever they inherit from.
    """
    return not isinstance(error, Exception | BaseExceptionGroup) and (
        type(error).__name__ != "CancelledError"
    )


def set_aside_cancellations(
    raised: BaseException | None,
) -> tuple[BaseException | None, BaseException | None]:
    """The cancellations in what was raised, if anything was, and the error that it is about.

    An exit that was asked for outweighs other errors; a single error is taken out of its groups.
    """
    if isinstance(raised, trio.Cancelled):
        return raised, None
    if not isinstance(raised, BaseExceptionGroup):
        return None, raised
    group = cast("BaseExceptionGroup[BaseException]", raised)
    cancelled, rest = group.split(trio.Cancelled)
    leaves = list(leaves_of(group))
    if not leaves:
        return cancelled, None
    for leaf in leaves:
        if asks_for_exit(leaf):
            return cancelled, leaf
    return cancelled, leaves[0] if len(leaves) == 1 else rest


@contextmanager
def single_errors_as_themselves() -> Generator[None]:
    """That there is a nursery inside is nobody's business: a single error comes out as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        error, *others = [
            part for part in group.exceptions if any(True for _ in leaves_of(part))
        ] or group.exceptions
        if others:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # and not the group
            del error


def _where(error: BaseException) -> str:
    """The innermost line of the user's own code that the error, or its cause, came through."""
    if isinstance(error, RestartLimitExceeded | StopFailed):
        return ""  # they tell the places of the failures that they are about
    sources = [error, error.__cause__]
    ours = isinstance(error, ServicesError)
    if ours:
        sources.reverse()  # it is raised in here, about what happened elsewhere
    for source in sources:
        if source is not None and (place := _innermost(source.__traceback__, own=True)):
            return place
    return "" if ours else _innermost(error.__traceback__, own=False)


def _innermost(traceback: TracebackType | None, *, own: bool) -> str:
    found = None
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not own or not filename.startswith((*_LIBRARIES, "<")):  # "<": generated code
            found = traceback
        traceback = traceback.tb_next
    if found is None:
        return ""
    code = found.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{found.tb_lineno} in {code.co_name}"
