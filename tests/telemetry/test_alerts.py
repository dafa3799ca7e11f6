"""Alerts of a running application, sent to real servers."""

from __future__ import annotations

import shutil
import ssl
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from loguru import logger

from trio_services import Backoff, Child, Limit, Secret, Supervisor, open_host
from trio_services.errors import Failure
from trio_services.lifecycle import Bus, events
from trio_services.telemetry import (
    Alerts,
    AlertStatistics,
    AlertTarget,
    alerting,
    check_alert_url,
    open_sink,
)
from trio_services.telemetry._webhook import WebhookRefused, post

from .webhook import Behaviour, answering, hanging_up, serving, silent, trickling

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_services.telemetry import AlertKind
    from trio_services.telemetry._sinks import Content

APPRISE = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it imports old modules
OK = answering("204 No Content")
AT_ONCE = Backoff(initial=0, jitter=0)


@pytest.fixture(autouse=True)
def lines() -> Generator[list[str]]:
    """What is logged."""
    found: list[str] = []
    logger.remove()
    logger.add(found.append, format="{message}", level="WARNING")
    yield found
    logger.remove()


@pytest.fixture
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time, but less of it."""
    monkeypatch.setattr("trio_services.telemetry._digest.GATHER", 0.02)
    monkeypatch.setattr("trio_services.telemetry._digest.STEADY", 0.05)
    monkeypatch.setattr("trio_services.telemetry._alerts.DELIVERY_WITHIN", 0.3)
    monkeypatch.setattr("trio_services.telemetry._alerts.LAST_WORD_WITHIN", 0.6)
    monkeypatch.setattr("trio_services.telemetry._alerts._BACKOFF", Backoff(0.01, jitter=0))


@attrs.define(eq=False)
class Watched:
    """What alerts are about, in place of a host."""

    bus: Bus = attrs.Factory(Bus)
    name: str = "shop"
    alerts: Alerts | None = None

    @property
    def statistics(self) -> AlertStatistics:
        assert self.alerts is not None
        return self.alerts.statistics()[0]

    def fail(self, service: str = "shop/sell") -> None:
        failure = Failure(service, "ValueError", "password=s3cret", "a.py:3 in run", 0.0)
        self.bus.publish(events.ServiceFailed(service, failure, ValueError("s3cret")))


@asynccontextmanager
async def watching(
    url: str,
) -> AsyncGenerator[Watched]:
    watched = Watched()
    child = alerting([AlertTarget("ops", Secret(url), ["service_failed"])])(watched)
    assert isinstance(child.service, Alerts)
    watched.alerts = child.service
    async with open_host(Supervisor("tellers", [child])):
        yield watched


@asynccontextmanager
async def watching_with(
    sink: Callable[[Content], object], monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Watched]:
    """The same with a function that gets each notice, and no I/O."""

    async def deliver(content: Content) -> None:
        await trio.lowlevel.checkpoint()
        sink(content)

    def opened(url: Secret) -> object:
        return deliver

    monkeypatch.setattr("trio_services.telemetry._alerts.open_sink", opened)
    async with watching("https://nowhere") as watched:
        yield watched


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):  # noqa: ASYNC912 -- of a condition that is met
        while not condition():  # noqa: ASYNC110 -- of figures
            await trio.sleep(0.005)


# -- when, in virtual time -----------------------------------------------------------------


async def test_storm_is_one_notice(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[Content] = []
    async with watching_with(notices.append, monkeypatch) as watched:
        for number in range(2000):
            watched.fail(f"shop/{number % 700}")
            watched.fail("shop/0")
        await trio.sleep(60)

    (notice,) = notices
    assert notice["title"] == "shop: 500 alerts"
    assert str(notice["text"]).splitlines()[-2:] == [
        "and 480 more",
        "500 alerts have been dropped since the start",
    ]
    assert watched.statistics == AlertStatistics("ops", pending=0, delivered=500, dropped=500)


async def test_there_are_few_notices_a_minute_however_much_happens(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[float] = []
    async with watching_with(lambda _: at.append(trio.current_time()), monkeypatch) as watched:
        for number in range(600):
            watched.fail(f"shop/{number}")
            await trio.sleep(1)
        await trio.sleep(20)

    assert watched.statistics.delivered == 600
    for start in at:
        assert len([one for one in at if start <= one < start + 60]) <= 9


async def test_delivery_is_tried_three_times_and_then_dropped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def refuse(_: Content) -> None:
        raise OSError("https://user:s3cret@host is down")

    async with watching_with(refuse, monkeypatch) as watched:
        watched.fail()
        await trio.sleep(60)
        assert watched.statistics == AlertStatistics("ops", pending=0, delivered=0, dropped=1)

    assert lines == ["alert not delivered to ops: OSError\n"] * 3


async def test_delivery_that_fails_once_is_made_up_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Content] = []

    def refuse_once(content: Content) -> None:
        tried.append(content)
        if len(tried) == 1:
            raise OSError

    async with watching_with(refuse_once, monkeypatch) as watched:
        watched.fail()
        await trio.sleep(60)
        assert watched.statistics == AlertStatistics("ops", pending=0, delivered=1, dropped=0)


async def test_what_waits_is_delivered_at_a_stop(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[Content] = []
    async with watching_with(notices.append, monkeypatch) as watched:
        watched.fail()
        began = trio.current_time()

    assert trio.current_time() == began
    assert [notice["title"] for notice in notices] == ["shop: 1 alert"]


async def test_what_cannot_be_delivered_at_a_stop_is_tried_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def refuse(_: Content) -> None:
        raise OSError

    async with watching_with(refuse, monkeypatch) as watched:
        watched.fail()

    assert lines == ["alert not delivered to ops: OSError\n"]
    assert watched.statistics == AlertStatistics("ops", pending=0, delivered=0, dropped=1)


# -- how, over real sockets ----------------------------------------------------------------


@pytest.mark.usefixtures("_brisk")
async def test_webhook_is_told_without_secrets_in_it() -> None:
    async with serving(OK) as receiver, watching(receiver.url) as watched:
        watched.fail()
        await until(lambda: watched.statistics.delivered == 1)

    (content,) = receiver.contents
    assert receiver.heads[0].startswith("POST /hook?key=s3cret HTTP/1.1\r\nHost: 127.0.0.1:")
    assert content["application"] == "shop"
    assert content["text"] == "shop/sell: failed: ValueError at a.py:3 in run"
    assert content["alerts"] == [
        {
            "kind": "service_failed",
            "service": "shop/sell",
            "text": "failed: ValueError at a.py:3 in run",
            "count": 1,
            "recovered": False,
        }
    ]
    assert "s3cret" not in str(content)


REDIRECTING = answering("307 Temporary Redirect", "Location: http://127.0.0.1:1/")


@pytest.mark.usefixtures("_brisk")
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answering("500 Oh"), "WebhookRefused"),
        (REDIRECTING, "WebhookRefused"),
        (silent, "not done within 0.3 s"),
        (trickling, "not done within 0.3 s"),
        (hanging_up, "RemoteProtocolError"),
    ],
)
async def test_bad_receiver_is_given_up(
    behaviour: Behaviour, reason: str, lines: list[str]
) -> None:
    async with serving(behaviour) as receiver, watching(receiver.url) as watched:
        watched.fail()
        await until(lambda: watched.statistics.dropped == 1)
    assert len(receiver.contents) == 3
    assert lines == [f"alert not delivered to ops: {reason}\n"] * 3


async def test_redirection_is_not_followed() -> None:
    async with serving(OK) as other:
        moved = answering("308 Permanent Redirect", f"Location: {other.url}")
        async with serving(moved) as receiver:
            with pytest.raises(WebhookRefused, match="answered with status 308"):
                await post(receiver.url, None, {})
    assert other.contents == []


@pytest.mark.usefixtures("_brisk")
async def test_receiver_that_is_down_is_given_up(lines: list[str]) -> None:
    async with watching("http://127.0.0.1:1/") as watched:
        watched.fail()
        await until(lambda: watched.statistics.dropped == 1)
    assert lines == ["alert not delivered to ops: OSError\n"] * 3


@pytest.mark.usefixtures("_brisk")
async def test_stuck_receiver_delays_neither_work_nor_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_services.telemetry._alerts.DELIVERY_WITHIN", 60)
    async with serving(silent) as receiver:
        async with watching(receiver.url) as watched:
            watched.fail()
            await receiver.has(1)
            began = trio.current_time()
            for number in range(10_000):
                watched.fail(f"shop/{number % 100}")
            assert trio.current_time() - began < 1
            began = trio.current_time()
        assert trio.current_time() - began < 2
        assert len(receiver.contents) == 1
        assert watched.statistics.delivered == 0
        assert watched.statistics.dropped == 1


@pytest.mark.usefixtures("_brisk")
async def test_application_that_gives_up_has_told_it_before_it_ends() -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("password=s3cret")

    async with serving(OK) as receiver:
        tell = alerting([AlertTarget("ops", Secret(receiver.url), ["restart_limit"])])
        tree = Supervisor(
            "shop", [Child(broken, name="sell", backoff=AT_ONCE)], max_restarts=Limit(1, per=60)
        )
        with pytest.RaisesGroup(Exception, allow_unwrapped=True):
            async with open_host(tree, companions=[tell]) as host:
                await host.wait_ended()

    (content,) = receiver.contents
    assert content["text"].startswith("shop: gave up: more restarts than max_restarts allows")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate by openssl")
async def test_https_is_spoken_only_with_who_is_trusted(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=here -addext subjectAltName=IP:127.0.0.1 -keyout key -out certificate"
    )
    await trio.run_process(command.split(), cwd=tmp_path, capture_stderr=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    trusting = ssl.create_default_context(cafile=tmp_path / "certificate")

    async with serving(OK, server) as receiver:
        with pytest.raises(trio.BrokenResourceError):
            await post(receiver.url, ssl.create_default_context(), {})
        assert receiver.contents == []
        await post(receiver.url, trusting, {"title": "a"})
    assert receiver.contents == [{"title": "a"}]


# -- Apprise -------------------------------------------------------------------------------


@APPRISE
@pytest.mark.usefixtures("_brisk")
async def test_apprise_delivers_what_it_knows() -> None:
    async with serving(OK) as receiver:
        address = receiver.url.replace("http://", "json://")
        async with watching(address) as watched:
            watched.fail()
            await until(lambda: watched.statistics.delivered == 1)
    (content,) = receiver.contents
    assert content["title"] == "shop: 1 alert"
    assert content["message"] == "shop/sell: failed: ValueError at a.py:3 in run"


@APPRISE
@pytest.mark.usefixtures("_brisk")
async def test_apprise_follows_no_redirection(lines: list[str]) -> None:
    async with serving(OK) as other:
        moved = answering("307 Temporary Redirect", f"Location: {other.url}")
        async with serving(moved) as receiver:
            address = receiver.url.replace("http://", "json://")
            async with watching(address) as watched:
                watched.fail()
                await until(lambda: watched.statistics.dropped == 1)
    assert other.contents == []
    assert set(lines) == {"alert not delivered to ops: SinkFailed\n"}


@APPRISE
@pytest.mark.usefixtures("_brisk")
async def test_apprise_that_is_stuck_has_one_thread_and_delays_no_stop() -> None:
    import apprise

    release, entered = threading.Event(), list[str]()

    def stuck(**_: object) -> bool:
        entered.append("")
        release.wait(20)
        return True

    def instantiate(url: str, asset: object) -> object:
        return SimpleNamespace(notify=stuck)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apprise.Apprise, "instantiate", instantiate)
        try:
            async with watching("json://host") as watched:
                watched.fail()
                await until(lambda: watched.statistics.dropped == 1)
                began = trio.current_time()
            assert trio.current_time() - began < 2
        finally:
            release.set()
    assert len(entered) == 1


def test_lack_of_apprise_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ValueError, match=r"install trio-services\[alerts\]"):
        open_sink(Secret("slack://s3cret"))


@APPRISE
def test_address_that_apprise_does_not_know_is_refused_and_not_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="Apprise knows") as caught:
        alerting([AlertTarget("ops", Secret("slack://s3cret"), ["job_dead"])])
    assert "s3cret" not in f"{caught.value}{capfd.readouterr()}"


# -- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file:///etc/s3cret", "it is a file"),
        ("FILE://s3cret", "it is a file"),
        ("https://host/s3cret\r\nX: y", "percent-encoded"),
        ("https://host/s3cret\0", "percent-encoded"),
        ("https://host/s3cret path", "percent-encoded"),
        ("https://h\N{LATIN SMALL LETTER O WITH DIAERESIS}st/s3cret", "percent-encoded"),
        ("s3cret", "not an address"),
        ("https://", "not an address"),
        ("https:///s3cret", "host or port"),
        ("https://host:70000/s3cret", "host or port"),
        ("https://host:0/s3cret", "host or port"),
        ("http://[host/s3cret", "host or port"),
        ("http://ada:s3cret@host/", "no user and password"),
    ],
)
def test_wrong_address_is_refused_and_not_shown(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        check_alert_url(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("on", [[], ["burned_down"]])
def test_target_has_known_kinds_of_trouble(on: list[AlertKind]) -> None:
    with pytest.raises(ValueError, match="on"):
        AlertTarget("ops", Secret("https://host"), on)
