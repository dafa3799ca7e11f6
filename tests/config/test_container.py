"""`[host] container`: what code gets by type, and what is said when it cannot."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from trio_services import serve
from trio_services.config import Application

from .conftest import Build, Refused

FILE = """
[host]
name = "depot"
imports = ["depot"]
container = "depot.stock:container"

[queues.parcels]

[services.fill]
use = "depot.stock:Fill"
options = { place = "left" }

[workers.book]
queue = "parcels"
handler = "depot.stock:book"
options = { place = "right", size = 5 }
"""


def changed(*changes: tuple[str, str]) -> str:
    text = FILE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def code() -> Any:
    return sys.modules["depot.stock"]


async def run_to_end(application: Application) -> None:
    with trio.fail_after(5):
        await serve(application.tree, container=application.container)


async def test_services_and_jobs_get_what_they_ask_for_and_their_own_options(built: Build) -> None:
    application = built(FILE)

    await run_to_end(application)

    options = code().ShelfOptions
    assert [
        options("left"),
        ("a parcel", code().Booking, options("right", 5)),
    ] == code().SEEN


async def test_class_that_handles_gets_options_once_and_the_rest_for_each_job(built: Build) -> None:
    application = built(changed(("stock:book", "stock:Book")))

    await run_to_end(application)

    assert code().SEEN[1] == ("a parcel", code().Booking, code().ShelfOptions("right", 5))


def test_disposal_counts_in_the_worst_stop(built: Build, refused: Refused) -> None:
    application = built(FILE)

    assert application.worst_stop == application.tree.worst_stop + 1
    (line,) = refused(changed(("imports", 'stop_within = "10.5s"\nimports')))
    assert line.startswith("config.toml:host.stop_within: ")
    built(changed(("imports", 'stop_within = "11s"\nimports')))


def test_options_that_something_needed_asks_for_are_checked(refused: Refused) -> None:
    assert refused(changed(('{ place = "left" }', "{ plaice = 3 }"))) == [
        'config.toml:services.fill.options.plaice: unknown key; did you mean "place"?',
        "config.toml:services.fill.options.place: missing; expected text",
    ]


def test_options_that_nothing_needed_asks_for_are_refused(refused: Refused) -> None:
    report = '[schedules.look]\ncall = "depot.stock:look"\nevery = "1h"\noptions = { size = 1 }'

    assert refused(f"{FILE}\n{report}") == [
        "config.toml:schedules.look.options: its code takes no options"
    ]


def test_what_nobody_provides_is_refused_with_who_asked(refused: Refused) -> None:
    assert refused(changed(("stock:container", "stock:bare"))) == [
        "config.toml:host.container: no provider for Store (asked by Booking); "
        "add container.provide(Store, …)",
        "config.toml:services.fill.use: no provider for Shelf (asked by Fill); "
        "add container.provide(Shelf, …)",
    ]


def test_what_does_not_live_long_enough_is_refused_with_who_asked(refused: Refused) -> None:
    text = changed(
        ("depot.stock:Fill", "depot.stock:Captor"), ('options = { place = "left" }\n', "")
    )

    assert refused(text) == [
        "config.toml:services.fill.use: Booking lives for one JOB, and Captor asks for it in a "
        "SERVICE scope; provide Booking with scope=SERVICE, or ask for it where it lives"
    ]


def test_captive_and_cycle_in_the_container_are_refused(refused: Refused) -> None:
    text = changed(
        ("stock:container", "stock:wrong"),
        ("stock:Fill", "stock:look"),
        ('options = { place = "left" }\n', ""),
        ("stock:book", "code:deliver"),
        ('options = { place = "right", size = 5 }\n', ""),
    )

    lines = refused(text)

    assert lines[:2] == [
        "config.toml:host.container: Booking lives for one JOB, and Cache asks for it in a "
        "SERVICE scope; provide Booking with scope=SERVICE, or ask for it where it lives",
        "config.toml:host.container: each of these asks for the next: Egg → Hen → Egg; "
        "let one of them do without",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            [("stock:container", "stock:nothing")],
            'host.container: module depot.stock has no "nothing"',
        ),
        (
            [("stock:container", "stock:SEEN")],
            "host.container: depot.stock:SEEN is no Container; expected `container = Container()`",
        ),
        (
            [("depot.stock:container", "elsewhere:container")],
            'host.container: "elsewhere" is not in host.imports; '
            "add its package there if this file may load it",
        ),
        (
            [("stock:book", "stock:Holder")],
            "workers.book.handler: depot.stock:Holder asks for `booking: "
            "depot.stock.Booking`, which no configuration can give; give it a default, or take it "
            "from `options`; what a container gives is not there yet when this is made",
        ),
        (
            [("stock:book", 'stock:press"\nisolation = "thread')],
            "workers.book.handler: depot.stock:press asks for `booking: "
            "depot.stock.Booking`, which no configuration can give; give it a default, or take it "
            "from `options`; what a container gives is not there yet when this is made",
        ),
    ],
    ids=["no such name", "no container", "not allowed", "made before", "in a thread"],
)
def test_what_a_container_cannot_do_is_refused(
    refused: Refused, changes: list[tuple[str, str]], line: str
) -> None:
    assert refused(changed(*changes)) == [f"config.toml:{line}"]
