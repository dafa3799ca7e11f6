"""What has to be done for a changed configuration: as little as possible."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trio_services.config import Application, build, load
from trio_services.config._changes import Plan, fixed, plan
from trio_services.errors import ConfigError
from trio_services.telemetry import LogSettings

from .conftest import write

TEXT = """\
[host]
name = "depot"
imports = ["depot"]
[queues.numbers]
[services.speak]
use = "depot.running:Speak"
options = { text = "a" }
[services.listen]
use = "depot.running:listen"
options = { text = "a" }
[workers.handle]
queue = "numbers"
handler = "depot.running:Handle"
count = 2
[schedules.report]
call = "depot.code:report"
every = "5m"
"""


class Running:
    """An application that is never run, and its configuration."""

    def __init__(self, text: str = TEXT, environment: Mapping[str, str] | None = None) -> None:
        self.environment = environment or {}
        self.application = self._build(text, None)

    def _build(self, text: str, running: Application | None) -> Application:
        write(text)
        return build(load("config.toml", environment=self.environment), running=running)

    def plan(self, *changes: tuple[str, str], more: str = "") -> Plan:
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        return plan(self.application, self._build(text + more, self.application))


@pytest.fixture
def running(folder: Path) -> Running:
    return Running()


def names(planned: Plan) -> dict[str, tuple[str, ...]]:
    kinds = ("added", "removed", "restarted", "adjusted")
    return {kind: found for kind in kinds if (found := getattr(planned, kind))}


def test_same_configuration_changes_nothing_and_makes_no_handler(running: Running) -> None:
    code: Any = sys.modules["depot.running"]
    made = len(code.made)
    planned = running.plan()

    assert names(planned) == {}
    assert planned.log is None
    assert len(code.made) == made
    assert planned.became.parts == running.application.parts
    assert planned.became.queues == running.application.queues


CHANGES: list[tuple[str, str, dict[str, tuple[str, ...]]]] = [
    ('options = { text = "a" }', 'options = { text = "b" }', {"restarted": ("speak",)}),
    ('"depot.running:Speak"\noptions = { text = "a" }', '"depot.running:idle"',
     {"restarted": ("speak",)}),
    ('listen"\noptions = { text = "a" }', 'listen"\noptions = { text = "b" }',
     {"adjusted": ("listen",)}),
    ('listen"\noptions = { text = "a" }', 'listen"', {"adjusted": ("listen",)}),
    ('listen"\noptions = { text = "a" }', 'listen"\nafter = ["speak"]\noptions = { text = "b" }',
     {"restarted": ("listen",)}),
    ("count = 2", "count = 3", {"adjusted": ("handle",)}),
    ("count = 2", "count = 2\nstop_within = 5", {"adjusted": ("handle",)}),
    ("count = 2", "count = 2\ntimeout = 5", {"restarted": ("handle",)}),
    ("count = 2", "count = 2\nbreaker = {}", {"restarted": ("handle",)}),
    ("count = 2", 'count = 3\nkey = "depot.code:plain_key"', {"restarted": ("handle",)}),
    ('every = "5m"', 'every = "6m"', {"restarted": ("report",)}),
    ('every = "5m"', 'every = "5m"\nbreaker = {}\ncritical = false', {"adjusted": ("report",)}),
    ('every = "5m"', 'every = "300s"', {}),
    ("[schedules.report]", "[schedules.tell]", {"added": ("tell",), "removed": ("report",)}),
    ('[schedules.report]\ncall = "depot.code:report"\nevery = "5m"', "",
     {"removed": ("report",)}),
    ('[schedules.report]\ncall = "depot.code:report"\nevery = "5m"',
     '[services.report]\nuse = "depot.code:report"', {"restarted": ("report",)}),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_change_concerns_as_few_as_possible(
    running: Running, old: str, new: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert names(running.plan((old, new))) == expected


def test_undo_is_the_change_back(running: Running) -> None:
    parts = running.application.parts
    planned = running.plan(
        ("[schedules.report]", "[schedules.tell]"),
        ('options = { text = "a" }', 'options = { text = "b" }'),
        ("count = 2", "count = 3"),
    )

    assert planned.undo.start == [parts["report"].child, parts["speak"].child]
    assert list(planned.undo.remove) == ["tell"]
    assert planned.undo.amend == [parts["handle"].child]


def test_count_is_changed_in_place_and_holds_for_later_starts(running: Running) -> None:
    before: Any = running.application.parts["handle"].child.service
    planned = running.plan(("count = 2", "count = 3"))
    after: Any = planned.became.parts["handle"].child.service

    assert planned.counts == {"handle": 3}
    assert after.count == 3
    assert after.handler is before.handler
    assert after.queue is before.queue


def test_live_options_are_replaced_and_those_of_later_starts_too(running: Running) -> None:
    planned = running.plan(
        ('listen"\noptions = { text = "a" }', 'listen"\noptions = { text = "b" }')
    )

    ((live, words),) = planned.live
    assert live is running.application.parts["listen"].live[0]
    assert getattr(words, "text") == "b"  # noqa: B009 -- its class is known to the tests' project
    service: Any = planned.became.parts["listen"].child.service
    assert service.keywords["options"] is live


def test_secret_that_was_rotated_restarts_who_has_it(folder: Path) -> None:
    key = 'text = "a", key = { file = "key" }'
    change = ('text = "a"', key)
    Path("key").write_text("1")
    running = Running(TEXT.replace(*change, 1))
    assert names(running.plan(change)) == {}
    Path("key").write_text("2")

    assert names(running.plan(change)) == {"restarted": ("speak",)}


def test_database_is_waited_for_and_stays_the_same_after_a_change(folder: Path) -> None:
    database = '[database]\nurl = "postgresql://host/depot"\n'
    running = Running(TEXT + database)
    change = ('use = "depot.running:Speak"', 'use = "depot.running:Speak"\nafter = ["database"]')

    planned = running.plan(change, more=database)

    (speak,) = planned.change.start
    assert (speak.name, speak.after) == ("speak", ("database",))
    assert planned.became.database is running.application.database


def test_log_is_changed_in_place(running: Running) -> None:
    planned = running.plan(more='[log]\nlevel = "debug"\n')

    assert names(planned) == {}
    assert planned.log == LogSettings(level="debug")


def test_queue_is_kept_and_a_new_one_is_made(running: Running) -> None:
    became = running.plan(more="[queues.others]\n").became

    assert became.queues["numbers"] is running.application.queues["numbers"]
    assert set(became.queues) == {"numbers", "others"}


def test_code_that_was_not_loaded_is_not(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.plan(('"depot.running:Speak"', '"depot.broken:Broken"'))

    assert caught.value.problems == (
        "config.toml:services.speak.use: depot.broken is not loaded, and a reload loads no code; "
        "restart the process",
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "depot"', 'name = "store"', "host.name"),
        ('imports = ["depot"]', 'imports = ["depot", "os"]', "host.imports"),
        ('name = "depot"', 'name = "depot"\nstop_within = 20', "host.stop_within"),
        ('name = "depot"', 'name = "depot"\nmax_restarts = { count = 1 }', "host.max_restarts"),
        ('name = "depot"', 'name = "depot"\nwatch = false', "host.watch"),
        ('name = "depot"', 'name = "depot"\ncontainer = "depot.stock:bare"', "host.container"),
        ("[queues.numbers]", '[admin]\nbind = "127.0.0.1:0"\n[queues.numbers]', "admin"),
        ("[queues.numbers]", "[queues.numbers]\ncapacity = 5", "queues.numbers"),
        ("count = 2", 'count = 2\nfeeds = ["numbers"]', "workers.handle.feeds"),
    ],
)
def test_what_cannot_change_is_a_problem(running: Running, old: str, new: str, key: str) -> None:
    write(TEXT.replace(old, new))
    changed = load("config.toml", environment={})

    (problem,) = fixed(running.application.tables, changed.tables)

    assert ".".join(map(str, problem.key)) == key
    assert "cannot change while the application runs" in problem.text
