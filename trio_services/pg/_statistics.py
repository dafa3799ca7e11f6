"""What a pool counts."""

from __future__ import annotations

import attrs


@attrs.frozen
class PoolStatistics:
    """What a pool has, and has done; names and units are those of psycopg's pool.

    Sizes and waiting requests are as they are now, and all else is since it was opened, or since
    the last `pop_stats`. Times are in milliseconds.
    """

    pool_min: int
    pool_max: int
    pool_size: int
    pool_available: int
    requests_waiting: int
    requests_num: int
    requests_queued: int
    requests_wait_ms: int
    requests_errors: int
    usage_ms: int
    returns_bad: int
    connections_num: int
    connections_ms: int
    connections_errors: int
    connections_lost: int


@attrs.define
class Counters:
    """What has happened since they were last reset; times are in seconds."""

    requests_num: int = 0
    requests_queued: int = 0
    requests_wait: float = 0.0
    requests_errors: int = 0
    usage: float = 0.0
    returns_bad: int = 0
    connections_num: int = 0
    connections_time: float = 0.0
    connections_errors: int = 0
    connections_lost: int = 0

    def statistics(
        self,
        *,
        pool_min: int,
        pool_max: int,
        pool_size: int,
        pool_available: int,
        requests_waiting: int,
    ) -> PoolStatistics:
        """These, and what a pool has now."""
        return PoolStatistics(
            pool_min=pool_min,
            pool_max=pool_max,
            pool_size=pool_size,
            pool_available=pool_available,
            requests_waiting=requests_waiting,
            requests_num=self.requests_num,
            requests_queued=self.requests_queued,
            requests_wait_ms=int(1000 * self.requests_wait),
            requests_errors=self.requests_errors,
            usage_ms=int(1000 * self.usage),
            returns_bad=self.returns_bad,
            connections_num=self.connections_num,
            connections_ms=int(1000 * self.connections_time),
            connections_errors=self.connections_errors,
            connections_lost=self.connections_lost,
        )
