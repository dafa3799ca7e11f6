"""Code that a configuration may name, and code that it may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from shutil import rmtree as rmtree
from typing import Any, Literal

import attrs

from trio_services import Secret, Service, WorkQueue
from trio_services.config import Live, Seconds
from trio_services.services import service


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@attrs.frozen
class SortOptions:
    folder: Path
    batch: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    label: str = "parcel"
    pause: Seconds = 1.0
    ratio: float = 0.5
    size: Size = Size.SMALL
    mode: Literal["fast", "thorough"] = "fast"
    tags: tuple[str, ...] = ()
    limits: Mapping[str, int] = attrs.field(factory=dict[str, int])
    either: int | str = 0
    anything: Any = None
    spare: Path | None = None


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    pause: Seconds
    to: str = "office"


def _check_order(span: Span, attribute: object, last: int) -> None:
    if last < span.first:
        raise ValueError(f"last ({last}) comes before first ({span.first})")


@attrs.frozen
class Span:
    first: int = 0
    last: int = attrs.field(default=9, validator=_check_order)


class Sort(Service):
    """Puts what lies in a folder on the queue."""

    def __init__(self, parcels: WorkQueue[str], options: SortOptions) -> None:
        self.parcels = parcels
        self.options = options

    async def run(self) -> None:
        pass


@attrs.define
class Audit(Service):
    """A service that is an attrs class, and asks for nothing that has to be given."""

    options: Span
    parcels: WorkQueue[str] | None = None
    spare: WorkQueue[str] | None = None
    times: int = 3

    async def run(self) -> None:
        pass


async def watch(*, options: ReportOptions) -> None:
    pass


@service
async def patrol(options: ReportOptions) -> None:
    pass


async def deliver(parcel: str) -> None:
    pass


async def deliver_with(parcel: str, options: ReportOptions, parcels: WorkQueue[str]) -> None:
    pass


def city_of(parcel: str) -> str:
    return parcel.partition(" ")[0]


def pack(parcels: list[str]) -> None:
    pass


async def bury(parcel: str, error: Exception) -> None:
    pass


async def bury_with(parcel: str, error: Exception, options: ReportOptions) -> None:
    pass


async def report() -> None:
    pass


def is_transient(error: Exception) -> bool:
    return isinstance(error, OSError)


class Deliver:
    def __init__(self, options: ReportOptions) -> None:
        self.options = options

    async def __call__(self, parcel: str) -> None:
        pass


class Deaf:
    def __call__(self, parcel: str) -> None:
        pass


class Demanding(Service):
    def __init__(self, van: Size, parcel: WorkQueue[str], parcels: list[str]) -> None: ...

    async def run(self) -> None:
        pass


class Untyped(Service):
    def __init__(self, options) -> None:  # type: ignore[no-untyped-def]
        pass

    async def run(self) -> None:
        pass


class Unresolved(Service):
    def __init__(self, options: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    async def run(self) -> None:
        pass


class Unfinished(Service):
    pass


class Prompt(Service):
    def run(self) -> None:  # type: ignore[override]
        pass


def plain() -> None:
    pass


van = "a van"


@attrs.frozen
class Login:
    token: Secret
    url: Secret | str = ""
    spare: tuple[Secret, ...] = ()
    by_name: Mapping[str, Secret] = attrs.field(factory=dict[str, Secret])
    maybe: Secret | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.min_len(8))
    )


async def log_in(options: Login) -> None:
    pass


def _tell(instance: object, attribute: object, value: Secret) -> None:
    raise ValueError(f"{value.reveal()} is too weak")


@attrs.frozen
class CarefulLogin:
    token: Secret = attrs.field(validator=_tell)


async def log_in_carefully(options: CarefulLogin) -> None:
    pass


@dataclasses.dataclass
class OddLogin:
    token: Secret

    def __post_init__(self) -> None:
        raise ValueError(f"odd: {self.token.reveal()!r}")


async def log_in_oddly(options: OddLogin) -> None:
    pass


class Teller:
    def __init__(self, options: Login) -> None:
        raise ValueError(f"bad {options.token.reveal()}")

    async def __call__(self, parcel: str) -> None:
        pass


def plain_key(item: object) -> str:
    return str(item)


def crunch(parcel: str, options: Live[ReportOptions]) -> None:
    pass


async def listen(options: Live[int]) -> None:
    pass
