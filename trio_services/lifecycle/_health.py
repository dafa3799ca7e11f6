"""How well a service is, in its own words and in its supervisor's."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

import attrs


class HealthStatus(IntEnum):
    """How well something is; the greater, the worse."""

    HEALTHY = 0
    DEGRADED = 1
    """It does a part of its work, or the application does without it."""
    UNHEALTHY = 2


@attrs.frozen
class Health:
    """How well something is, and if it is not, why."""

    status: HealthStatus
    reason: str = ""

    @classmethod
    def healthy(cls) -> Self:
        """All is well."""
        return cls(HealthStatus.HEALTHY)

    @classmethod
    def degraded(cls, reason: str) -> Self:
        """It works, but not as it should."""
        return cls(HealthStatus.DEGRADED, reason)

    @classmethod
    def unhealthy(cls, reason: str) -> Self:
        """It does not work."""
        return cls(HealthStatus.UNHEALTHY, reason)
