from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from prometheus_client import Metric
from prometheus_client.openmetrics import parser

from trio_services import Breaker, Child, Supervisor, Workers, WorkQueue, telemetry
from trio_services.admin import Bind, _server, serve_admin
from trio_services.host import Host, open_host
from trio_services.telemetry import _metrics

from .client import Program, Server, serving

if TYPE_CHECKING:
    import pytest

PARSE: Callable[[str], Iterable[Metric]] = vars(parser)["text_string_to_metric_families"]


async def handle(item: int) -> None:
    await trio.lowlevel.checkpoint()


async def test_running_application_is_scraped(tmp_path: object) -> None:
    bind = Bind.parse(f"unix:{tmp_path}/admin.sock")

    def admin(host: Host) -> Child:
        return Child(partial(serve_admin, bind, host), name="admin", stop_within=0)

    queue = WorkQueue[int]("letters")
    tree = Supervisor("post", [Child(Workers(queue, handle), name="answer")])
    async with open_host(tree, companions=[admin]):
        for number in range(7):
            await queue.put(number)
        await trio.sleep(0.4)  # in which the event loop is looked at
        server = Server(f"unix:{bind.path}")
        reply = await server.get("/metrics")
        health = await server.get("/health")
    assert reply.headers["content-type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in PARSE(reply.body.decode())
        for sample in family.samples
    }
    assert samples["trio_services_queue_items_total", "done", "letters"] == 7
    assert samples["trio_services_service_running", "post/admin"] == 1
    assert samples[("trio_services_event_loop_lag_seconds_count",)] >= 1
    assert [one["name"] for one in health.json()["services"]] == ["post/admin", "post/answer"]


async def fail() -> None:
    await trio.sleep(0.01)
    raise OSError("password=hunter2 \udcff")


async def test_status_is_the_tree_and_its_queues(tmp_path: object) -> None:
    bind = Bind.parse(f"unix:{tmp_path}/admin.sock")

    def admin(host: Host) -> Child:
        return Child(partial(serve_admin, bind, host), name="admin", stop_within=0)

    queue = WorkQueue[int]("letters")
    down = Child(fail, name="down", critical=False, breaker=Breaker(1, reset_after=60, jitter=0))
    tree = Supervisor("post", [Child(Workers(queue, handle), name="answer"), down])
    async with open_host(tree, companions=[admin]):
        await queue.put(1)
        await trio.sleep(0.1)
        reply = await Server(f"unix:{bind.path}").get("/api/v1/status")
    assert reply.status == 200
    assert b"hunter2" not in reply.body
    root = reply.json()["services"]
    assert (root["name"], root["state"], root["health"]["status"]) == (
        "post",
        "running",
        "degraded",
    )
    [_, answer, told] = root["children"]
    assert answer["health"] == {"status": "healthy", "reason": ""}
    assert (told["state"], told["breaker"], told["critical"]) == ("backing_off", "open", False)
    assert told["failure"]["type"] == "OSError"
    assert 59 < told["next_start"] < 60
    assert 0 < told["since"] < 1
    assert reply.json()["queues"]["letters"]["done"] == 1


async def test_scrape_that_takes_long_holds_up_nobody_else_and_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: telemetry.Readings) -> bytes:
        begun.set()
        go_on.wait(5)
        return b""

    monkeypatch.setattr(_metrics, "as_openmetrics", slow)
    try:
        async with serving(program=Program()) as server, trio.open_nursery() as nursery:
            nursery.start_soon(server.get, "/metrics")
            await trio.to_thread.run_sync(begun.wait, 5)
            with trio.fail_after(1):
                assert (await server.get("/live")).status == 200
            nursery.cancel_scope.cancel()
            begun_to_stop = trio.current_time()
        assert trio.current_time() - begun_to_stop < 1
    finally:
        go_on.set()


async def test_scraper_that_stops_reading_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 32 * 1024 * 1024

    def much(_: telemetry.Readings) -> bytes:
        return b"#" * size

    monkeypatch.setattr(_metrics, "as_openmetrics", much)
    monkeypatch.setattr(_server, "_PATIENCE", 0.3)
    async with serving(program=Program()) as server, server.client() as client:
        await client.send(client.request("GET", "/metrics"))
        await trio.sleep(1.5)
        received = 0
        with suppress(trio.BrokenResourceError), trio.fail_after(5):
            while data := await client.stream.receive_some():
                received += len(data)
    assert received < size


async def test_scrape_that_fails_is_a_bare_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(_: telemetry.Readings) -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(_metrics, "as_openmetrics", faulty)
    async with serving(program=Program()) as server:
        reply = await server.get("/metrics")
        alive = await server.get("/live")
    assert (reply.status, reply.json()) == (500, {"status": "internal server error"})
    assert alive.status == 200
    assert "secret" in caplog.text
