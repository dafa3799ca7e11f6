"""How often something happened lately. Pure: times come in as arguments."""

from __future__ import annotations

from collections import deque


class Window:
    """Whether something happens `count` times within `per` seconds; a sliding window.

    What happened exactly `per` seconds ago is outside.

    Source: the restart intensity of OTP supervisors (*MaxR* restarts within *MaxT* seconds).
    """

    __slots__ = ("_per", "_times")

    def __init__(self, count: int, per: float) -> None:
        self._per = per
        self._times: deque[float] = deque(maxlen=count)

    def add(self, now: float) -> bool:
        """Count one more, now; whether that makes `count` within the window."""
        times = self._times
        times.append(now)
        return len(times) == times.maxlen and times[0] > now - self._per

    def clear(self) -> None:
        """Forget what happened."""
        self._times.clear()
