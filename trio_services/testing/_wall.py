"""The wall clock of an application under test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import trio


@attrs.define(eq=False)
class Wall:
    """The wall clock that `at` and schedules read, which goes along with Trio's clock.

    Args:
        base: what it shows, in seconds since 1970, when Trio's clock is at zero.
    """

    base: float

    def __call__(self) -> float:
        """Seconds since 1970, in UTC."""
        return self.base + trio.current_time()

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.fromtimestamp(self(), UTC)

    def jump(self, by: float | timedelta) -> None:
        """Set it forward, or back.

        Args:
            by: a duration, or seconds; back if it is negative.
        """
        self.base += by.total_seconds() if isinstance(by, timedelta) else by
