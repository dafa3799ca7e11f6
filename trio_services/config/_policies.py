"""The tables inside of others: how often, how long, how many."""

from __future__ import annotations

from typing import TypedDict

import attrs
from attrs import field

from ._constraints import (
    above_zero,
    at_least,
    at_most,
)
from ._durations import Seconds
from ._reference import CodeReference


class About(TypedDict):
    """The metadata of a field."""

    help: str
    unit: str


def about(help: str, unit: str = "") -> About:  # noqa: A002 -- it is what the field is called
    """The metadata of a field: a sentence, and the unit where it is a number of something."""
    return About(help=help, unit=unit)


@attrs.frozen
class LimitTable:
    """`[host] max_restarts`."""

    count: int = field(
        default=5,
        validator=at_least(0),
        metadata=about("One restart more than this, and the host gives up.", "restarts"),
    )
    per: Seconds = field(
        default=60.0,
        validator=above_zero,
        metadata=about("The time in which restarts are counted together.", "seconds"),
    )


@attrs.frozen
class BackoffTable:
    """`backoff = { … }`: delays that grow."""

    initial: Seconds = field(
        default=0.5, validator=at_least(0), metadata=about("The first delay.", "seconds")
    )
    factor: float = field(
        default=2.0,
        validator=at_least(1),
        metadata=about("Each delay is this many times the one before.", "times"),
    )
    cap: Seconds = field(
        default=60.0, validator=at_least(0), metadata=about("The longest delay.", "seconds")
    )
    jitter: float = field(
        default=0.25,
        validator=[at_least(0), at_most(1)],
        metadata=about("The share of each delay that is drawn at random.", "0 to 1"),
    )
    reset_after: Seconds = field(
        default=60.0,
        validator=at_least(0),
        metadata=about("After so much healthy running, delays start small again.", "seconds"),
    )


@attrs.frozen
class BreakerTable:
    """`breaker = { … }`: when what keeps failing is left alone for a while."""

    failures: int = field(
        default=5,
        validator=at_least(1),
        metadata=about("So many within the next time open it.", "failures"),
    )
    within: Seconds = field(
        default=60.0, validator=above_zero, metadata=about("That time.", "seconds")
    )
    reset_after: Seconds = field(
        default=30.0,
        validator=above_zero,
        metadata=about("How long it is open before the first probe; doubled each time.", "seconds"),
    )
    cap: Seconds = field(
        default=600.0,
        validator=above_zero,
        metadata=about("The longest time that it is open at once.", "seconds"),
    )
    healthy_after: Seconds = field(
        default=10.0,
        validator=at_least(0),
        metadata=about("How long a probe has to stay healthy to close it.", "seconds"),
    )
    give_up_after: int | None = field(
        default=None,
        validator=at_least(1),
        metadata=about("After so many openings the next failing probe is the last.", "openings"),
    )
    jitter: float = field(
        default=0.1,
        validator=[at_least(0), at_most(1)],
        metadata=about("The share of each open time that is drawn at random.", "0 to 1"),
    )


@attrs.frozen
class RetryTable:
    """`retry = { … }`: what happens to a job that failed."""

    attempts: int = field(
        default=5,
        validator=at_least(1),
        metadata=about("How often a job is tried in all.", "attempts"),
    )
    backoff: BackoffTable = field(
        default=BackoffTable(), metadata=about("The delays between attempts.")
    )
    on: CodeReference | None = field(
        default=None,
        metadata=about("Which failures may pass: an exception, or a function that says so."),
    )


@attrs.frozen
class RateTable:
    """`rate = { … }`: how often something may be done."""

    count: int = field(
        validator=at_least(1), metadata=about("So many times in the next time.", "times")
    )
    per: Seconds = field(default=1.0, validator=above_zero, metadata=about("That time.", "seconds"))


@attrs.frozen
class BatchTable:
    """`batch = { … }`: items are handed over in lists."""

    size: int = field(validator=at_least(1), metadata=about("So many at most.", "items"))
    within: Seconds = field(
        default=0.0,
        validator=at_least(0),
        metadata=about("How long to wait for more after the first; 0: not at all.", "seconds"),
    )
