"""Limits on how long a piece of work may take."""

from __future__ import annotations

from types import TracebackType

import trio

from ..errors import TimedOut


class timeout:  # noqa: N801 -- reads as a verb: `with timeout(30.0):`
    """Cancel the block after some seconds and raise `TimedOut`.

    Unlike `trio.fail_after`, its error can be told from a time-out of the block's own.

    Args:
        seconds: how long the block may take; > 0.

    Cancellation: passes through untouched; only the block's own deadline raises `TimedOut`.
    """

    __slots__ = ("_scope", "seconds")

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"a time-out must be more than 0 s, not {seconds}")
        self.seconds: float = seconds
        self._scope = trio.CancelScope(relative_deadline=seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        handled = bool(self._scope.__exit__(exc_type, exc, traceback))
        if self._scope.cancelled_caught:
            raise TimedOut(self.seconds) from exc  # which shows where the block was waiting
        return handled
