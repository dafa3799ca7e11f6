"""A POST of JSON over HTTP/1.1, on Trio, with h11: no redirects, no pool, no retries."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from .._version import __version__

_READ_BYTES = 4096


class WebhookRefused(Exception):
    """The answer was not a success."""


async def post(url: str, tls: ssl.SSLContext | None, content: Mapping[str, object]) -> None:
    """Send JSON, and see that the answer is a success.

    Args:
        url: with a host, of printable ASCII.
        tls: what is trusted, for ``https://``; None for ``http://``.
        content: what to send.

    Raises:
        WebhookRefused: another answer, a redirection for example; tells its status.
        OSError, h11.RemoteProtocolError, trio.BrokenResourceError, ssl.CertificateError: it could
            not be sent, or was not answered in HTTP.

    Cancellation: at any time, and at once; it may have been sent.
    """
    address = urlsplit(url)
    body = json.dumps(content).encode()
    stream = await _connect(address, tls)
    try:
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method="POST",
            target=(address.path or "/") + (f"?{address.query}" if address.query else ""),
            headers=[
                ("Host", address.netloc),
                ("User-Agent", f"trio-services/{__version__}"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ],
        )
        for event in (request, h11.Data(body), h11.EndOfMessage()):
            await stream.send_all(connection.send(event) or b"")
        status = await _status(connection, stream)
    finally:
        # Nothing more is wanted, and a polite farewell could take as long as the other side likes.
        await trio.aclose_forcefully(stream)
    if not 200 <= status < 300:
        raise WebhookRefused(f"answered with status {status}")


async def _connect(address: SplitResult, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    host = address.hostname or ""
    stream = await trio.open_tcp_stream(host, address.port or (443 if tls else 80))
    if tls is None:
        return stream
    return trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)


async def _status(connection: h11.Connection, stream: trio.abc.Stream) -> int:
    """The status of the answer, whose body is not read."""
    while True:  # noqa: ASYNC913 -- without data there is no event
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            return event.status_code
