from __future__ import annotations

import io
import json
import re
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from loguru import logger

from trio_services import Backoff, Child, RestartLimitExceeded, Supervisor, open_supervisor
from trio_services.errors import Failure
from trio_services.lifecycle import Bus, events
from trio_services.queues import current_job
from trio_services.queues._job import Job
from trio_services.telemetry import EventLog, LogSettings, configure_logs, log_critical

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Literal

    from trio.testing import MockClock

AT_ONCE = Backoff(initial=0, cap=0, jitter=0)


@pytest.fixture(autouse=True)
def _restored() -> Generator[None]:
    yield
    logger.remove()
    logger.configure(patcher=lambda record: None)


def logging(
    form: Literal["console", "json"] = "console",
    *,
    level: str = "trace",
    levels: dict[str, str] | None = None,
) -> io.StringIO:
    stream = io.StringIO()
    configure_logs(LogSettings(level=level, format=form, levels=levels or {}), stream)
    return stream


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def entries_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


@contextmanager
def failing(message: str = "connection refused") -> Generator[ValueError]:
    try:
        raise ValueError(message)
    except ValueError as error:
        yield error


def failure(message: str = "connection refused") -> Failure:
    return Failure("app/sync", "ValueError", message, "sync.py:17 in fetch", 0.0)


ERROR = ValueError("connection refused")

LINES = [
    (events.ServiceStarting("app/a", 2, at=0.0), "DEBUG", "starting (start 2)"),
    (events.ServiceReady("app/a", 0.0123, at=0.0), "INFO", "ready in 12.3 ms"),
    (events.ServiceReturned("app/a", 61.5, at=0.0), "INFO", "returned after 61.5 s"),
    (events.ServiceRestarting("app/a", 0.5, 3, at=0.0), "WARNING", "restart 3 in 500 ms"),
    (events.ServiceStopping("app/a", 10.0, at=0.0), "INFO", "stopping, within 10 s"),
    (events.ServiceStopped("app/a", 0.0, at=0.0), "INFO", "stopped in 0 s"),
    (
        events.ServiceFailed("app/a", failure(), ERROR, at=0.0),
        "ERROR",
        "failed: ValueError: connection refused (sync.py:17 in fetch)",
    ),
    (
        events.ServiceFailed("app/a", failure(), ERROR, stopping=True, at=0.0),
        "ERROR",
        "failed while stopping: ValueError: connection refused",
    ),
    (
        events.ServiceOverdue("app/a", 1.0, "task app/a\n  File x, line 1", at=0.0),
        "CRITICAL",
        "ignores its cancellation: still there 1 s past its deadline, at",
    ),
    (events.BreakerOpened("app/a", 1, 30.0, at=0.0), "ERROR", "breaker open: left alone for 30 s"),
    (
        events.BreakerHalfOpened("app/a", at=0.0),
        "WARNING",
        "breaker half-open: one more start will show",
    ),
    (events.BreakerClosed("app/a", at=0.0), "INFO", "breaker closed: healthy again"),
    (
        events.BreakerGaveUp("app/a", 3, at=0.0),
        "CRITICAL",
        "breaker gave up: opened 3 times in a row, stays down",
    ),
    (
        events.SupervisorGaveUp("app/a", "too many restarts", (), at=0.0),
        "CRITICAL",
        "gives up: too many restarts",
    ),
    (
        events.JobRetrying("app/a", "orders", "orders#1", 2, failure(), 0.5, at=0.0),
        "WARNING",
        "attempt 2 failed: ValueError: connection refused (sync.py:17 in fetch); next in 500 ms",
    ),
    (
        events.JobDead("app/a", "orders", "orders#1", 5, failure(), "item", ERROR, at=0.0),
        "ERROR",
        "dead after 5 attempts: ValueError: connection refused",
    ),
    (
        events.DeadLetterKept("app/a", "orders", "orders#1", failure(), "item", ERROR, at=0.0),
        "CRITICAL",
        "its dead letter was not taken, and is kept in memory: ValueError: connection refused",
    ),
    (
        events.WorkEnded("app/a", "orders", "accepted 3 = done 3", at=0.0),
        "INFO",
        "queue orders: accepted 3 = done 3",
    ),
    (
        events.ConfigurationReloaded(
            "app/a", added=("b",), removed=(), restarted=("c", "d"), adjusted=(), at=0.0
        ),
        "INFO",
        "configuration reloaded: added b, restarted c and d",
    ),
    (
        events.ConfigurationReloaded(
            "app/a", added=(), removed=(), restarted=(), adjusted=(), at=0.0
        ),
        "INFO",
        "configuration reloaded: no service is concerned",
    ),
    (
        events.ConfigurationRejected("app/a", ("x.toml: it is empty",), at=0.0),
        "ERROR",
        "configuration unchanged: x.toml: it is empty",
    ),
    (
        events.ConfigurationRolledBack("app/a", "a was not ready", restored=True, at=0.0),
        "ERROR",
        "configuration rolled back: a was not ready",
    ),
]


def test_each_problem_of_a_configuration_is_a_line() -> None:
    stream = logging()

    EventLog()(events.ConfigurationRejected("app", ("x.toml:a: 1", "x.toml:b: 2"), at=0.0))

    assert [line.partition("unchanged: ")[2] for line in lines_of(stream)] == [
        "x.toml:a: 1",
        "x.toml:b: 2",
    ]


def test_rollback_to_what_is_not_ready_either_is_critical() -> None:
    stream = logging()

    EventLog()(events.ConfigurationRolledBack("app", "no", restored=False, at=0.0))

    assert "CRITICAL" in lines_of(stream)[-1]


@pytest.mark.parametrize(
    ("event", "level", "text"), LINES, ids=[type(event).__name__ for event, _, _ in LINES]
)
def test_event_is_a_line(event: events.Event, level: str, text: str) -> None:
    stream = logging()

    EventLog()(event)

    line = lines_of(stream)[0]
    assert re.match(rf"\d\d:\d\d:\d\d\.\d\d\d {level} ", line)
    assert "app/a" in line
    assert text in line


@pytest.mark.parametrize(
    ("event", "level", "text"), LINES, ids=[type(event).__name__ for event, _, _ in LINES]
)
def test_event_is_an_object(event: events.Event, level: str, text: str) -> None:
    stream = logging("json")

    EventLog()(event)

    (entry,) = entries_of(stream)
    assert entry["level"] == level.lower()
    assert entry["service"] == "app/a"
    assert text in entry["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", entry["time"])


def test_line_about_a_job_carries_job_and_attempt() -> None:
    stream = logging("json")

    EventLog()(events.JobRetrying("app/w", "orders", "orders#7", 2, failure(), 1, at=0.0))
    EventLog()(events.JobDead("app/w", "orders", "orders#7", 5, failure(), "x", ERROR, at=0.0))

    assert [(entry["job"], entry["attempt"]) for entry in entries_of(stream)] == [
        ("orders#7", 2),
        ("orders#7", 5),
    ]


def test_item_of_a_dead_job_is_not_logged() -> None:
    stream = logging("json")

    EventLog()(events.JobDead("app/w", "orders", "orders#7", 5, failure(), "secret", ERROR, at=0.0))

    assert "secret" not in stream.getvalue()


def test_repeated_failure_shows_its_traceback_once() -> None:
    stream = logging()
    log = EventLog()

    with failing() as error:
        for _ in range(5):
            log(events.ServiceFailed("app/sync", failure(), error, at=0.0))

    assert stream.getvalue().count("Traceback") == 1
    assert stream.getvalue().count("failed: ValueError") == 5


def test_another_failure_shows_its_traceback_too() -> None:
    stream = logging()
    log = EventLog()

    with failing() as error:
        log(events.ServiceFailed("app/sync", failure(), error, at=0.0))
        log(events.ServiceFailed("app/sync", failure("timed out"), error, at=0.0))

    assert stream.getvalue().count("Traceback") == 2


def test_failures_of_two_services_show_a_traceback_each() -> None:
    stream = logging()
    log = EventLog()
    other = Failure("app/other", "ValueError", "connection refused", "sync.py:17 in fetch", 0.0)

    with failing() as error:
        log(events.ServiceFailed("app/sync", failure(), error, at=0.0))
        log(events.ServiceFailed("app/other", other, error, at=0.0))

    assert stream.getvalue().count("Traceback") == 2


FORGED = "12:00:00.000 CRITICAL app: gives up"
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", BREAKS, ids=[repr(one)[1:-1] for one in BREAKS])
def test_message_cannot_forge_a_line_on_the_console(line_break: str) -> None:
    stream = logging()

    logger.info(f"hello{line_break}{FORGED}")
    with failing(f"hello{line_break}{FORGED}") as error:
        told = failure(str(error))
        EventLog()(events.ServiceFailed("app/sync", told, error, at=0.0))

    assert not any(line.startswith(FORGED) for line in lines_of(stream))


@pytest.mark.parametrize("line_break", BREAKS, ids=[repr(one)[1:-1] for one in BREAKS])
def test_message_cannot_forge_a_line_of_json(line_break: str) -> None:
    stream = logging("json")

    logger.info(f'hello{line_break}{{"level":"critical"}}')

    (line,) = lines_of(stream)
    assert json.loads(line)["message"] == f'hello{line_break}{{"level":"critical"}}'


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "\x07", "\x00", "\u202e"])
@pytest.mark.parametrize("form", ["console", "json"])
def test_control_characters_do_not_reach_a_terminal(
    form: Literal["console", "json"], text: str
) -> None:
    stream = logging(form)

    logger.info(f"hello {text}")

    assert stream.getvalue().rstrip("\n").isprintable()


@pytest.mark.parametrize("form", ["console", "json"])
def test_context_cannot_forge_a_line(form: Literal["console", "json"]) -> None:
    stream = logging(form)

    logger.bind(service=f"app\n{FORGED}", job=f"1\n{FORGED}").info("hello")

    assert not any(line.startswith(FORGED) for line in lines_of(stream))
    assert len(lines_of(stream)) == 1


def test_context_cannot_replace_the_message_of_json() -> None:
    stream = logging("json")

    logger.bind(message="forged", time="never", level="critical").info("hello")

    (entry,) = entries_of(stream)
    assert (entry["message"], entry["level"]) == ("hello", "info")
    assert entry["time"] != "never"


def test_braces_in_a_message_are_text() -> None:
    stream = logging()

    EventLog()(events.ServiceFailed("app/a", failure("{0} {x} <red>"), ERROR, at=0.0))

    assert "{0} {x} <red>" in lines_of(stream)[0]


@pytest.mark.parametrize("form", ["console", "json"])
def test_lone_surrogates_do_not_lose_a_line(form: Literal["console", "json"]) -> None:
    # The name of a file that is not UTF-8 has them.
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "utf-8", errors="strict", write_through=True)
    configure_logs(LogSettings(format=form), stream)

    logger.info("cannot read caf\udce9.csv")

    assert b"cannot read caf" in raw.getvalue()
    stream.detach()


def test_json_is_json_on_a_stream_that_knows_ascii_only() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", errors="backslashreplace", write_through=True)
    configure_logs(LogSettings(format="json"), stream)

    logger.info("café ¼")

    assert json.loads(raw.getvalue())["message"] == "café ¼"
    stream.detach()


def test_value_that_json_does_not_know_is_text() -> None:
    stream = logging("json")

    logger.bind(error=ValueError("x"), scope={1, 2}).info("hello")

    (entry,) = entries_of(stream)
    assert entry["error"] == "x"


def test_json_has_no_words_that_other_parsers_do_not_know() -> None:
    stream = logging("json")

    logger.bind(ratio=float("nan")).info("hello")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(stream.getvalue(), parse_constant=refuse)


def test_multi_line_traceback_is_one_line_of_json() -> None:
    stream = logging("json")

    with failing() as error:
        EventLog()(events.ServiceFailed("app/sync", failure(), error, at=0.0))

    (entry,) = entries_of(stream)
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert "\n" not in entry["message"]


def test_error_with_a_broken_message_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message for you")

    stream = logging()
    told = Failure("app/a", "Rude", "<its message cannot be shown>", "", 0.0)

    try:
        raise Rude
    except Rude as error:
        EventLog()(events.ServiceFailed("app/a", told, error, at=0.0))

    assert "failed: Rude" in stream.getvalue()
    assert "Logging error" not in capsys.readouterr().err


def test_level_is_the_least_that_is_logged() -> None:
    stream = logging(level="warning")

    logger.info("quiet")
    logger.warning("loud")

    assert [line.split()[-1] for line in lines_of(stream)] == ["loud"]


def test_services_have_levels_of_their_own() -> None:
    stream = logging(level="info", levels={"sync": "debug", "chatty": "error"})

    for name in ("app/sync", "app/sync/inner", "app/chatty", "app/other", "app/chatty/sync"):
        logger.bind(service=name).debug(f"debug {name}")
        logger.bind(service=name).warning(f"warning {name}")

    assert [line.split()[-2] + " " + line.split()[-1] for line in lines_of(stream)] == [
        "debug app/sync",
        "warning app/sync",
        "debug app/sync/inner",
        "warning app/sync/inner",
        "warning app/other",
        "debug app/chatty/sync",
        "warning app/chatty/sync",
    ]


@pytest.mark.parametrize(
    "settings",
    [{"level": "loud"}, {"format": "xml"}, {"levels": {"sync": "loud"}}, {"level": "INFO"}],
)
def test_unknown_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"level|format"):
        LogSettings(**settings)


async def test_users_lines_carry_the_service() -> None:
    stream = logging("json")
    said = trio.Event()

    async def nested() -> None:
        await trio.lowlevel.checkpoint()
        logger.info("from a child task")

    async def talking() -> None:
        logger.info("from the service")
        await trio.to_thread.run_sync(logger.info, "from a thread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nested)
            nursery.start_soon(trio.lowlevel.checkpoint)
        said.set()

    async with open_supervisor(Supervisor("app", [Supervisor("inner", [talking])])):
        await said.wait()
    logger.info("from elsewhere")

    assert [(entry["message"], entry.get("service")) for entry in entries_of(stream)] == [
        ("from the service", "app/inner/talking"),
        ("from a thread", "app/inner/talking"),
        ("from a child task", "app/inner/talking"),
        ("from elsewhere", None),
    ]


async def test_users_lines_carry_the_job(autojump_clock: MockClock) -> None:
    stream = logging("json")

    async def working() -> None:
        current_job.set(Job("orders", 7, "item", attempt=2))
        logger.info("hello")
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [working])):
        await trio.sleep(1)

    (entry,) = entries_of(stream)
    assert (entry["service"], entry["job"], entry["attempt"]) == ("app/working", "orders#7", 2)


async def test_context_given_by_the_user_is_kept(autojump_clock: MockClock) -> None:
    stream = logging("json")

    async def talking() -> None:
        logger.bind(order=17).info("hello")
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [talking])):
        await trio.sleep(1)

    (entry,) = entries_of(stream)
    assert (entry["order"], entry["service"]) == (17, "app/talking")


@pytest.mark.parametrize("form", ["console", "json"])
async def test_no_local_values_are_logged(
    autojump_clock: MockClock, form: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = logging(form)
    bus = Bus()

    async def leaky() -> None:
        password = "hunter2-" + "x" * 3
        await trio.lowlevel.checkpoint()
        connect(password)

    def connect(secret: str) -> None:
        raise ConnectionError(f"refused for a secret of {len(secret)} characters")

    with pytest.raises(RestartLimitExceeded), bus.listening(EventLog()):
        async with open_supervisor(Supervisor("app", [Child(leaky, backoff=AT_ONCE)]), bus=bus):
            await trio.sleep_forever()
    try:
        password = "hunter2-" + "y" * 3
        connect(password)
    except ConnectionError:
        logger.exception("in user code")

    assert "Traceback" in stream.getvalue()
    assert "connect(password)" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "hunter2" not in "".join(capsys.readouterr())


async def test_traceback_begins_in_the_code_of_the_service(autojump_clock: MockClock) -> None:
    stream = logging()
    bus = Bus()

    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("broken")

    with pytest.raises(RestartLimitExceeded), bus.listening(EventLog()):
        async with open_supervisor(Supervisor("app", [Child(broken, restart="never")]), bus=bus):
            await trio.sleep_forever()

    assert "in broken" in stream.getvalue()
    assert "_supervision.py" not in stream.getvalue()


def test_end_of_a_story_is_critical() -> None:
    stream = logging()

    log_critical("app gave up: x\n  app/sync: ValueError")

    first, second = lines_of(stream)
    assert "CRITICAL app gave up: x" in first
    assert second.startswith("    ")


def test_logs_go_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())

    logger.info("hello")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("INFO     hello\n")


def test_missing_standard_error_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)

    configure_logs(LogSettings())
    logger.info("hello")


def test_lines_of_several_threads_stay_whole() -> None:
    stream = logging("json")

    def talk(number: int) -> None:
        for _ in range(100):
            logger.info(f"{number}" * 50)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    entries = entries_of(stream)
    assert len(entries) == 400
    assert all(set(entry["message"]) <= set(entry["message"][0]) for entry in entries)


def test_colours_are_for_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    configure_logs(LogSettings(), terminal)
    logger.error("hello")

    assert "\x1b[31mERROR" in terminal.getvalue()

    configure_logs(LogSettings(format="json"), terminal := Terminal())
    logger.error("hello")
    assert "\x1b" not in terminal.getvalue()
