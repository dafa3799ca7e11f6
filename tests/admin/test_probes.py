from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from trio_services.admin import _app
from trio_services.lifecycle import Health, State
from trio_services.telemetry import ServiceHealth

from .client import Program, Server, serving


async def test_live_says_that_the_program_is_alive() -> None:
    async with serving() as server:
        reply = await server.get("/live")
    assert (reply.status, reply.json()) == (200, {"status": "alive"})
    assert reply.headers["content-type"] == "application/json"


async def test_ready_follows_what_the_program_says() -> None:
    reasons: list[str] = []
    async with serving(program=Program(lambda: reasons)) as server:
        before = await server.get("/ready")
        reasons += ["database: no connection", "mailer: starting"]
        meanwhile = await server.get("/ready")
        alive = await server.get("/live")
        reasons.clear()
        after = await server.get("/ready")

    assert (before.status, before.json()) == (200, {"status": "ready"})
    assert meanwhile.status == 503
    assert meanwhile.json() == {
        "status": "not ready",
        "because": ["database: no connection", "mailer: starting"],
    }
    assert alive.status == 200
    assert (after.status, after.json()) == (200, {"status": "ready"})


async def test_ready_says_what_the_program_does_without() -> None:
    forecast = Health.degraded("forecast: no weather")
    service = ServiceHealth("app/forecast", State.RUNNING, critical=True, health=forecast)
    async with serving(program=Program(services=[service])) as server:
        reply = await server.get("/ready")
    assert (reply.status, reply.json()) == (
        200,
        {"status": "degraded", "because": ["forecast: no weather"]},
    )


async def test_program_that_is_unhealthy_is_not_ready() -> None:
    db = Health.unhealthy("app/db: no connection")
    service = ServiceHealth("app/db", State.RUNNING, critical=True, health=db)
    async with serving(program=Program(services=[service])) as server:
        reply = await server.get("/ready")
        alive = await server.get("/live")
    assert (reply.status, alive.status) == (503, 200)
    assert reply.json() == {"status": "not ready", "because": ["app/db: no connection"]}


async def test_startup_is_over_once_all_were_ready_whatever_comes_then() -> None:
    program = Program(lambda: ["app/db is starting"], was_ready=False)
    async with serving(program=program) as server:
        before = await server.get("/startup")
        program.was_ready = True
        after = await server.get("/startup")
    assert (before.status, before.json()) == (
        503,
        {"status": "not started", "because": ["app/db is starting"]},
    )
    assert (after.status, after.json()) == (200, {"status": "started"})


async def test_health_tells_of_each_service() -> None:
    services = [
        ServiceHealth("app/db", State.RUNNING, critical=True, health=Health.healthy()),
        ServiceHealth(
            "app/cache", State.FAILED, critical=False, health=Health.degraded("down \udcff")
        ),
    ]
    program = Program(services=services)
    async with serving(program=program) as server:
        degraded = await server.get("/health")
        program.services = [
            ServiceHealth("app/db", State.RUNNING, critical=True, health=Health.unhealthy("gone"))
        ]
        unhealthy = await server.get("/health")
    assert (degraded.status, degraded.json()) == (
        200,
        {
            "status": "degraded",
            "services": [
                {
                    "name": "app/db",
                    "state": "running",
                    "critical": True,
                    "status": "healthy",
                    "reason": "",
                },
                {
                    "name": "app/cache",
                    "state": "failed",
                    "critical": False,
                    "status": "degraded",
                    "reason": "down ?",
                },
            ],
        },
    )
    assert (unhealthy.status, unhealthy.json()["status"]) == (503, "unhealthy")


async def test_failing_readiness_check_means_not_ready_and_tells_only_its_type() -> None:
    def broken() -> Sequence[str]:
        raise LookupError("password=hunter2")

    async with serving(program=Program(broken)) as server:
        reply = await server.get("/ready")
        alive = await server.get("/live")
    assert reply.status == 503
    assert reply.json() == {
        "status": "not ready",
        "because": ["the readiness check failed: LookupError"],
    }
    assert alive.status == 200


async def test_reason_that_is_no_proper_text_is_still_told() -> None:
    async with serving(program=Program(lambda: ["file \udcff", "é"])) as server:
        reply = await server.get("/ready")
    assert (reply.status, reply.json()["because"]) == (503, ["file ?", "é"])


@pytest.mark.parametrize(
    "path", ["/live", "/startup", "/ready", "/health", "/metrics", "/live?verbose=1", "/%6cive"]
)
async def test_head_is_get_without_the_body(path: str) -> None:
    async with serving() as server, server.client() as client:
        get = await client.get(path)
        head = await client.ask("HEAD", path)
        again = await client.get(path)  # a body after HEAD would be in its way
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert again.body == get.body


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics/",
        "/live/",
        "//live",
        "/live%00",
        "/live/%2e%2e/ready",
        "/api/v1/%2e%2e/%2e%2e/live",
        "/api/v1/status/post",
        "/api/v2/status",
        "/LIVE",
        "*",
    ],
)
async def test_any_other_path_is_not_found(path: str) -> None:
    async with serving() as server:
        reply = await server.get(path)
    assert (reply.status, reply.json()) == (404, {"status": "not found"})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/live", "/metrics", "/api/v1/status"])
async def test_wrong_method_is_told_the_right_ones(path: str, method: str) -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask(method, path)
        unknown = await client.ask(method, "/elsewhere")
    assert (reply.status, reply.json()) == (405, {"status": "method not allowed"})
    assert sorted(reply.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert unknown.status == 404


async def test_no_answer_is_cached_nor_names_the_software() -> None:
    async with serving(program=Program(lambda: ["starting"])) as server, server.client() as client:
        replies = [await client.get(path) for path in ("/live", "/ready", "/elsewhere")]
        replies.append(await client.ask("TRACE", "/live"))
        async with server.client() as garbled:
            await garbled.send(b"?\r\n\r\n")
            replies.append(await garbled.reply())
    assert [reply.status for reply in replies] == [200, 503, 404, 405, 400]
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store"
        assert "server" not in reply.headers


async def test_fault_of_ours_is_a_bare_500_for_the_client_and_a_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(_: object) -> list[str]:
        raise RuntimeError("secret")

    monkeypatch.setattr(_app, "_reasons", faulty)
    async with serving() as server, server.client() as client:
        reply = await client.get("/ready")
        alive = await client.get("/live")
    assert (reply.status, reply.json()) == (500, {"status": "internal server error"})
    assert alive.status == 200
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trio_services.admin"
    assert "secret" in caplog.text


async def test_requests_leave_no_lines_behind(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        await server.get("/live")
        await server.get("/elsewhere")
        async with server.client() as client:
            await client.send(b"?\r\n\r\n")
            await client.reply()
        async with server.client() as client:
            await client.send(b"GET /li")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


async def test_connection_serves_many_requests() -> None:
    async with serving() as server, server.client() as client:
        one_by_one = [(await client.get("/live")).status for _ in range(5)]
        await client.send(client.request("GET", "/live") * 5)
        all_at_once = [(await client.reply()).status for _ in range(5)]
    assert one_by_one == all_at_once == [200] * 5


async def test_client_that_has_finished_sending_gets_its_answer() -> None:
    async with serving() as server, server.client() as client:
        await client.send(client.request("GET", "/live"))
        await client.stream.send_eof()
        assert (await client.reply()).status == 200
        assert await client.closed()


async def test_http_1_0_is_answered_once() -> None:
    async with serving() as server, server.client() as client:
        await client.send(f"GET /live HTTP/1.0\r\nHost: {client.host}\r\n\r\n".encode())
        assert (await client.reply()).status == 200
        assert await client.closed()


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:"),
        ("localhost:0", "http://127.0.0.1:"),
        ("[::1]:0", "http://[::1]:"),
    ],
)
async def test_address_that_was_taken_is_told(bind: str, url: str) -> None:
    async with serving(bind) as server:
        assert server.url.startswith(url)
        assert server.port > 0
        assert (await server.get("/live")).status == 200


async def test_probes_are_answered_on_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving("unix:admin.sock") as server:
        assert server.url == f"unix:{tmp_path}/admin.sock"
        assert (await server.get("/live")).status == 200


async def test_many_clients_are_answered_at_once() -> None:
    statuses: list[int] = []

    async def probe(server: Server) -> None:
        statuses.append((await server.get("/ready")).status)

    async with serving() as server, trio.open_nursery() as nursery:
        for _ in range(90):
            nursery.start_soon(probe, server)
    assert statuses == [200] * 90
