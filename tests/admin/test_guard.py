from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from trio_services.admin._listen import _names

from .client import Client, Reply, serving


async def _is_sent_away(client: Client, reply: Reply) -> bool:
    return reply.headers["connection"] == "close" and await client.closed()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.2"])
async def test_names_of_this_host_are_answered(name: str) -> None:
    async with serving("127.0.0.2:0") as server, server.client() as client:
        reply = await client.ask("GET", "/live", host=f"{name}:{server.port}")
    assert reply.status == 200


@pytest.mark.parametrize(
    "host",
    ["example.com:{}", "localhost", "localhost:1", "127.0.0.3:{}", "[::2]:{}", "localhost:{}.", ""],
)
async def test_other_names_are_misdirected(host: str) -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask("GET", "/live", host=host.format(server.port))
        assert reply.status == 421
        assert await _is_sent_away(client, reply)


def test_port_80_may_be_left_out() -> None:
    assert {"localhost", "localhost:80"} <= _names("127.0.0.1", 80)
    assert "localhost" not in _names("127.0.0.1", 8080)


async def test_any_single_host_will_do_on_a_unix_socket(tmp_path: Path) -> None:
    async with serving(f"unix:{tmp_path}/s") as server, server.client() as client:
        assert (await client.ask("GET", "/live", host="whatever")).status == 200
        assert (await client.ask("GET", "/live", "Host: b", host="a")).status == 400


@pytest.mark.parametrize(
    "head",
    [
        "GET /live HTTP/1.1\r\n\r\n",
        "GET /live HTTP/1.0\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\n\r\n",
        "GET /live HTTP/1.0\r\nHost: {0}\r\nHost: {0}\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: {0}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: {0}\r\nContent-Length: -1\r\n\r\n",
        "POST /live HTTP/1.1\r\nHost: {0}\r\nContent-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET  /live HTTP/1.1\r\nHost: {0}\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\nHost: {0}\r\n\r\n",
        "GET /live\r\n\r\n",
        "\x16\x03\x01\x00\x05\x01\x00\r\n\r\n",
    ],
)
async def test_malformed_request_is_refused_and_the_connection_closed(head: str) -> None:
    async with serving() as server, server.client() as client:
        await client.send(head.format(client.host).encode("latin-1"))
        reply = await client.reply()
        assert reply.status == 400
        assert await _is_sent_away(client, reply)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "X"])
async def test_odd_method_is_refused_everywhere(method: str) -> None:
    async with serving() as server:
        for path in ("/live", "/elsewhere"):
            async with server.client() as client:
                reply = await client.ask(method, path)
                assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
                assert await _is_sent_away(client, reply)


async def test_upgrade_to_http_2_is_taken_no_notice_of() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask(
            "GET",
            "/live",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        )
        assert (reply.status, reply.json()) == (200, {"status": "alive"})
        assert (await client.get("/live")).status == 200


async def test_http_2_without_asking_is_refused() -> None:
    async with serving() as server, server.client() as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        reply = await client.reply()  # the guard's, although Hypercorn stumbles over what follows
        assert (reply.status, reply.json()["because"]) == (
            400,
            ["exactly one Host header is needed"],
        )
        assert await _is_sent_away(client, reply)


async def test_websocket_is_refused() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask(
            "GET",
            "/live",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        assert reply.status == 403
        assert await client.closed()


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_head_over_8_kib_is_refused(in_pieces: bool) -> None:
    async with serving() as server, server.client() as client:
        head = client.request("GET", "/live", "X: " + "x" * 8192)
        if in_pieces:
            await client.send(head[:-1])
        else:
            await client.send(head)
        reply = await client.reply()
        assert reply.status == 431
        assert await _is_sent_away(client, reply)


async def test_flood_of_headers_is_refused() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask("GET", "/live", *["X: x"] * 50_000)
        assert reply.status == 431


async def test_head_just_under_8_kib_is_answered() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask("GET", "/live", "X: " + "x" * 8000)
        assert reply.status == 200


async def test_body_is_dropped_and_the_connection_goes_on() -> None:
    async with serving() as server, server.client() as client:
        sized = await client.ask("GET", "/live", "Content-Length: 65536", body=bytes(65536))
        chunked = await client.ask(
            "GET", "/live", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"
        )
        assert (sized.status, chunked.status) == (200, 200)
        assert (await client.get("/live")).status == 200


async def test_body_over_64_kib_is_refused_before_it_is_sent() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask("POST", "/live", "Content-Length: 65537")
        assert reply.status == 413
        assert await _is_sent_away(client, reply)


async def test_expected_body_over_64_kib_is_refused() -> None:
    async with serving() as server, server.client() as client:
        reply = await client.ask("POST", "/live", "Content-Length: 65537", "Expect: 100-continue")
        assert reply.status == 100  # Hypercorn says so at once, and the guard after it:
        assert (await client.reply()).status == 413


async def test_client_in_full_flow_still_gets_its_refusal() -> None:
    async with serving() as server, server.client() as client:
        with trio.fail_after(2):
            body = bytes(4 * 2**20)
            reply = await client.ask("POST", "/live", f"Content-Length: {len(body)}", body=body)
        assert reply.status == 413


@pytest.mark.parametrize(
    "chunk", [b"10000\r\n" + bytes(65536) + b"\r\n", (b"64\r\n" + bytes(100) + b"\r\n") * 50]
)
async def test_body_of_unknown_length_is_refused_at_64_kib(chunk: bytes) -> None:
    async with serving() as server, server.client() as client, trio.open_nursery() as nursery:
        await client.send(client.request("POST", "/live", "Transfer-Encoding: chunked"))

        async def flow() -> None:
            try:
                while True:
                    await client.send(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(flow)
        with trio.fail_after(2):
            reply = await client.reply()
        assert reply.status == 413
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"])
async def test_garbled_chunks_end_the_connection_only(body: bytes) -> None:
    async with serving() as server:
        async with server.client() as client:
            await client.send(client.request("POST", "/live", "Transfer-Encoding: chunked") + body)
            with suppress(EOFError, trio.BrokenResourceError), trio.fail_after(1):
                while True:
                    assert (await client.reply()).status == 400
        assert (await server.get("/live")).status == 200
