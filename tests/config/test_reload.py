"""A running application becomes what its file says, or stays as it is."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_services.config import _reload, _watch, build, load
from trio_services.config._reload import Reloader, reloading
from trio_services.host import Host, open_host
from trio_services.lifecycle import State, events

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
after = ["speak"]
[services.idle]
use = "depot.running:idle"
[workers.handle]
queue = "numbers"
handler = "depot.running:Handle"
count = 2
options = { text = "a" }
[services.fill]
use = "depot.running:fill"
"""


@attrs.frozen
class Running:
    """An application with what it was seen to do, and what was published."""

    host: Host
    reloader: Reloader
    seen: list[str]
    published: list[events.Event]

    async def reload(self, *changes: tuple[str, str], more: str = "") -> events.Event:
        """Change the file, reload, and return what was published of that."""
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        write(text + more)
        return await self.again()

    async def again(self) -> events.Event:
        del self.seen[:], self.published[:]
        await self.reloader.reload()
        (event,) = [one for one in self.published if type(one).__name__.startswith("Configuration")]
        return event

    @property
    def starts(self) -> dict[str, int]:
        return {
            one.name.removeprefix("depot/"): one.restarts + 1
            for one in self.host.tree.statistics().children
        }

    @property
    def states(self) -> set[State]:
        return {one.state for one in self.host.tree.statistics().children}


@asynccontextmanager
async def opened(text: str = TEXT) -> AsyncGenerator[Running]:
    write(text)
    read = partial(load, "config.toml", environment={})
    configuration = read()
    application = build(configuration)
    code: Any = sys.modules["depot.running"]
    del code.seen[:], code.made[:]
    published: list[events.Event] = []
    async with open_host(application.tree, container=application.container) as host:
        reloader = Reloader(host, configuration, application, read)
        with host.bus.listening(published.append):
            yield Running(host, reloader, code.seen, published)


def changed(**names: tuple[str, ...]) -> Any:
    kinds = dict.fromkeys(("added", "removed", "restarted", "adjusted"), ())
    return events.ConfigurationReloaded("depot", **{**kinds, **names}, at=trio.current_time())


async def test_changed_options_restart_the_service_and_nobody_else(
    folder: Path, autojump_clock: object
) -> None:
    async with opened() as running:
        event = await running.reload(('text = "a"', 'text = "b"'))

        assert event == changed(restarted=("speak",))
        assert "speak b" in running.seen
        assert running.starts == {"speak": 2, "listen": 1, "idle": 1, "handle": 1, "fill": 1}


async def test_live_options_reach_the_service_that_runs(
    folder: Path, autojump_clock: object
) -> None:
    async with opened() as running:
        event = await running.reload(
            ('listen"\noptions = { text = "a" }', 'listen"\noptions = { text = "b" }')
        )
        await trio.sleep(0.1)

        assert event == attrs.evolve(changed(adjusted=("listen",)), at=event.at)
        assert "listen b" in running.seen
        assert running.starts["listen"] == 1
        await running.host.tree.restart("listen")
        assert running.seen[-1] == "listen b"


async def test_services_are_added_and_removed(folder: Path, autojump_clock: object) -> None:
    async with opened() as running:
        event = await running.reload(
            ("[services.idle]", "[services.still]"),
            more='[schedules.report]\ncall = "depot.running:idle"\nevery = 5\n',
        )

        assert event == changed(added=("still", "report"), removed=("idle",))
        assert set(running.starts) == {"speak", "listen", "handle", "fill", "still", "report"}
        assert running.states == {State.RUNNING}


async def test_count_of_workers_changes_in_place_and_stays(
    folder: Path, autojump_clock: object
) -> None:
    async with opened() as running:
        await running.reload(("count = 2", "count = 5"))

        def count() -> int:
            (pool,) = [
                one.work for one in running.host.tree.statistics().children if "handle" in one.name
            ]
            return int(getattr(pool, "count"))  # noqa: B009

        assert count() == 5
        assert running.starts["handle"] == 1
        await running.host.tree.restart("handle")
        assert count() == 5


@pytest.mark.parametrize("text", ["bad", "late"])
async def test_service_that_does_not_get_on_with_its_options_gets_the_old_ones_back(
    folder: Path, autojump_clock: object, text: str
) -> None:
    async with opened() as running:
        before = running.host.tree.statistics()
        event = await running.reload(
            ('text = "a"', f'text = "{text}"'),
            ("count = 2", "count = 5"),
            ("[services.idle]", "[services.still]"),
        )

        assert isinstance(event, events.ConfigurationRolledBack)
        assert event.restored
        assert f"ValueError: {'bad text' if text == 'bad' else 'too late'}" in event.reason
        assert running.seen[-1] == "speak a"
        assert set(running.starts) == {one.name.removeprefix("depot/") for one in before.children}
        assert running.states == {State.RUNNING}
        assert running.starts["listen"] == running.starts["handle"] == running.starts["fill"] == 1
        write(TEXT)
        assert await running.again() == changed()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (TEXT + "x = [", ["config.toml:21:6: Invalid value"]),
        ("", ["config.toml: it is empty"]),
        (
            TEXT.replace("count = 2", "count = 0").replace('text = "a"', "text = 5"),
            ["config.toml:workers.handle.count: 0 is too small; expected at least 1"],
        ),
        (
            TEXT.replace('text = "a"', "text = 5", 1).replace("running:idle", "broken:idle"),
            [
                "config.toml:services.speak.options.text: 5 is not text",
                "config.toml:services.idle.use: depot.broken is not loaded, and a reload loads no "
                "code; restart the process",
            ],
        ),
        (
            TEXT.replace('name = "depot"', 'name = "store"\nstop_within = 5'),
            [
                "config.toml:host.name: cannot change while the application runs; "
                "restart the process",
                "config.toml:host.stop_within: cannot change while the application runs; "
                "restart the process",
            ],
        ),
    ],
)
async def test_wrong_file_changes_nothing_and_every_problem_is_told(
    folder: Path, autojump_clock: object, text: str, problems: list[str]
) -> None:
    async with opened() as running:
        write(text)
        event = await running.again()

        assert isinstance(event, events.ConfigurationRejected)
        assert list(event.problems) == problems
        assert set(running.starts.values()) == {1}
        assert len(running.published) == 1


async def test_file_that_has_gone_or_cannot_be_read_changes_nothing(
    folder: Path, autojump_clock: object
) -> None:
    async with opened() as running:
        os.unlink("config.toml")  # noqa: PTH108
        gone = await running.again()
        os.mkfifo("config.toml")
        fifo = await running.again()
        os.unlink("config.toml")  # noqa: PTH108
        write(TEXT)
        os.chmod("config.toml", 0o666)  # noqa: PTH101
        writable = await running.again()

        assert isinstance(gone, events.ConfigurationRejected)
        assert gone.problems == ("config.toml: there is no such file",)
        assert isinstance(fifo, events.ConfigurationRejected)
        assert isinstance(writable, events.ConfigurationRejected)
        assert set(running.starts.values()) == {1}


async def test_file_that_is_torn_at_any_byte_changes_nothing_or_is_whole(
    folder: Path, autojump_clock: object
) -> None:
    # Even by SIGHUP, which does not ask whether a beginning that is sound is meant.
    async with opened() as running:
        rejected = 0
        for offset in range(0, len(TEXT), 3):
            write(TEXT[:offset])
            event = await running.again()
            if isinstance(event, events.ConfigurationRejected):
                rejected += 1
                continue
            kept = load("config.toml", environment={}).tables.children
            assert set(running.starts) == {str(name) for _, name in kept}
            write(TEXT)
            assert not isinstance(await running.again(), events.ConfigurationRejected)

        assert rejected > len(TEXT) / 3 / 2
        assert running.states == {State.RUNNING}


async def test_workers_that_are_removed_and_come_back_find_their_queue_as_it_was(
    folder: Path, autojump_clock: object
) -> None:
    workers = TEXT[TEXT.index("[workers.handle]") : TEXT.index("[services.fill]")]
    async with opened() as running:
        await trio.sleep(2.5)
        await running.reload((workers, ""))
        await trio.sleep(5)
        await running.reload()
        await trio.sleep(30)

        queue: Any = running.reloader._application.queues["numbers"]
        assert queue.statistics().done == 20
        assert queue.statistics().left == 0


async def test_companions_stay_around_what_is_added(folder: Path, autojump_clock: object) -> None:
    write(TEXT)
    read = partial(load, "config.toml", environment={})
    configuration = read()
    application = build(configuration)
    stopped: list[str] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.ServiceStopped):
            stopped.append(event.service)

    companion = reloading(configuration, application, read)
    async with open_host(application.tree, companions=[companion]) as host:
        reloader = Reloader(host, configuration, application, read)
        write(TEXT + '[services.more]\nuse = "depot.running:linger"\n')
        await reloader.reload()
        with host.bus.listening(note):
            host.request_stop()
            await host.wait_ended()
    assert stopped.index("depot/more") < stopped.index("depot/reload")


async def test_stop_in_the_middle_of_a_reload_ends_it(folder: Path, autojump_clock: object) -> None:
    async with opened() as running, trio.open_nursery() as nursery:
        write(TEXT.replace('text = "a"', 'text = "b"', 1))
        nursery.start_soon(running.reloader.reload)
        await trio.sleep(0.5)
        running.host.request_stop()
    assert running.host.tree.life.state is State.STOPPED
    assert not [one for one in running.published if isinstance(one, events.ConfigurationRolledBack)]


@pytest.mark.parametrize("reloads", [40, pytest.param(1000, marks=pytest.mark.soak)])
async def test_many_reloads_under_load_restart_nobody_else_and_lose_no_job(
    folder: Path, autojump_clock: object, reloads: int
) -> None:
    text = TEXT.replace("running:fill", "running:fill_for_ever").replace("Handle", "HandleFast")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    async with opened(text) as running:
        queue: Any = running.reloader._application.queues["numbers"]
        before = descriptors()
        outcomes: list[type[events.Event]] = []
        for number in range(reloads):
            changed_text = text.replace('text = "a"', f'text = "{number}"', 1)
            changed_text = changed_text.replace("count = 2", f"count = {2 + number % 3}")
            write(changed_text if number % 2 else changed_text + "x = [")
            outcomes.append(type(await running.again()))
        starts = running.starts

        assert descriptors() == before
        assert outcomes == [events.ConfigurationRejected, events.ConfigurationReloaded] * (
            reloads // 2
        )
        assert starts.pop("speak") == 1 + reloads // 2
        assert set(starts.values()) == {1}
    books = queue.statistics()
    assert books.accepted == books.done + books.left > reloads
    assert books.returned == books.dead == 0


async def test_service_that_fails_again_and_again_is_mended_by_other_options(
    folder: Path, autojump_clock: object
) -> None:
    async with opened(TEXT.replace('text = "a"', 'text = "late"', 1)) as running:
        await trio.sleep(0.6)
        (speak,) = [one for one in running.host.tree.statistics().children if "speak" in one.name]
        assert speak.state is State.BACKING_OFF

        event = await running.reload(('text = "a"', 'text = "b"'))
        await trio.sleep(100)

        assert isinstance(event, events.ConfigurationReloaded)
        assert running.states == {State.RUNNING}


async def test_previous_configuration_that_does_not_start_either_is_tried_again_and_again(
    folder: Path, autojump_clock: object
) -> None:
    async with opened() as running:
        code: Any = sys.modules["depot.running"]
        code.broken = True
        event = await running.reload(('text = "a"', 'text = "bad"'))

        assert isinstance(event, events.ConfigurationRolledBack)
        assert not event.restored
        code.broken = False
        await trio.sleep(100)
        assert running.states == {State.RUNNING}


async def test_stop_does_not_wait_for_a_file_system_that_hangs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    looks = 0

    def look_at(path: Path, others: object) -> _watch.Look:
        nonlocal looks
        looks += 1
        if looks > 1:
            hangs.set()
            goes_on.wait(20)
        return _watch.look_at(path, [])

    monkeypatch.setattr(_reload, "look_at", look_at)
    write(TEXT)
    read = partial(load, "config.toml", environment={})
    configuration = read()
    application = build(configuration)
    try:
        companion = reloading(configuration, application, read)
        async with open_host(application.tree, companions=[companion]):
            await trio.to_thread.run_sync(hangs.wait, 20)
            begun = trio.current_time()
        assert trio.current_time() - begun < 1
    finally:
        goes_on.set()


CONTAINED = """\
[host]
name = "depot"
imports = ["depot"]
container = "depot.stock:container"
[services.left]
use = "depot.stock:stay"
options = { place = "left" }
[services.right]
use = "depot.stock:stay"
options = { place = "right" }
[services.idle]
use = "depot.running:idle"
"""


async def test_options_by_type_reach_the_service_that_they_are_changed_of(
    folder: Path, autojump_clock: object
) -> None:
    async with opened(CONTAINED) as running:
        code: Any = sys.modules["depot.stock"]
        write(CONTAINED.replace('"right"', '"middle"'))

        event = await running.again()

        assert event == attrs.evolve(changed(restarted=("right",)), at=event.at)
        assert running.starts == {"left": 1, "right": 2, "idle": 1}
        assert sorted(options.place for options in code.SEEN) == ["left", "middle", "right"]
