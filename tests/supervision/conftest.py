from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import ending_within

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Generator[None]:
    """A supervisor that spins in virtual time, or waits for ever, fails its test instead."""
    if hasattr(request.function, "hypothesis"):
        yield  # which sees to that itself, for each example
    else:
        with ending_within(20):
            yield
