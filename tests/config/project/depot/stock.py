"""Code that gets what it asks for by type, and containers for it, some of them wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_services import JOB, SERVICE, Container, Service, WorkQueue
from trio_services.telemetry import Logger


@attrs.frozen
class ShelfOptions:
    place: str
    size: int = 3


class Store:
    """Where everything is; shared by all."""


class Shelf:
    """One for each run of a service, as its options say."""

    def __init__(self, store: Store, options: ShelfOptions) -> None:
        self.store = store
        self.options = options


class Booking:
    """One for each job."""

    def __init__(self, store: Store) -> None:
        self.store = store


SEEN: list[object] = []


class Fill(Service):
    """Fill a shelf."""

    def __init__(self, shelf: Shelf, parcels: WorkQueue[str], log: Logger) -> None:
        self.shelf = shelf
        self.parcels = parcels
        self.log = log

    async def run(self) -> None:
        SEEN.append(self.shelf.options)
        await self.parcels.put("a parcel")
        self.parcels.close()


async def book(parcel: str, booking: Booking, options: ShelfOptions) -> None:  # noqa: ASYNC124 -- a handler
    SEEN.append((parcel, type(booking), options))


async def count(shelf: Shelf) -> None:
    pass


async def look(booking: Booking) -> None:
    pass


async def stay(shelf: Shelf) -> None:
    SEEN.append(shelf.options)
    await trio.sleep_forever()


class Holder:
    def __init__(self, booking: Booking) -> None: ...

    async def __call__(self, parcel: str) -> None: ...


class Book:
    """A handler that is made once, and gets the rest for each job."""

    def __init__(self, options: ShelfOptions) -> None:
        self.options = options

    async def __call__(self, parcel: str, booking: Booking) -> None:
        SEEN.append((parcel, type(booking), self.options))


def press(parcel: str, booking: Booking) -> None: ...


class Captor(Service):
    def __init__(self, booking: Booking) -> None: ...

    async def run(self) -> None: ...


class Egg:
    def __init__(self, hen: Hen) -> None: ...


class Hen:
    def __init__(self, egg: Egg) -> None: ...


class Cache:
    def __init__(self, booking: Booking) -> None: ...


@asynccontextmanager
async def open_store() -> AsyncGenerator[Store]:
    yield Store()


container = Container(dispose_within=1)
container.provide(open_store)
container.provide(Shelf, scope=SERVICE)
container.provide(Booking, scope=JOB)
container.expect(ShelfOptions, scope=SERVICE)

bare = Container()
bare.provide(Booking, scope=JOB)

wrong = Container()
wrong.provide(Store)
wrong.provide(Booking, scope=JOB)
wrong.provide(Cache, scope=SERVICE)
wrong.provide(Egg)
wrong.provide(Hen)
