"""What is refused before the application sees it: the limits of an HTTP request, as one list.

Hypercorn accepts any `Host`, `Content-Length` beside `Transfer-Encoding`, `TRACE`, and a head of
any size that arrives at once.
"""

from __future__ import annotations

import attrs
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HEAD_BYTES = 8 * 1024
BODY_BYTES = 64 * 1024
_TOO_LARGE = f"the request's body has more than {BODY_BYTES} bytes"
# A method outside of these is no route's business; which of these is, the routes know.
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


@attrs.frozen
class _Refusal:
    status: int
    because: str
    allow: str | None = None


@attrs.frozen
class Guard:
    """ASGI middleware that lets only well-formed requests for this server pass.

    A refused client gets its status with the reason as JSON, and its connection is closed: what
    else is in it cannot be trusted to be a request.

    Args:
        app: What is guarded. It must not read the request's body: the guard has dropped it.
        hosts: The `Host` headers that are answered, in lower case; None for any one.
    """

    app: ASGIApp
    hosts: frozenset[str] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        refusal = self._judge(scope) or await _drop_body(receive)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        headers = {"connection": "close"}
        if refusal.allow is not None:
            headers["allow"] = refusal.allow
        content = {"status": "refused", "because": [refusal.because]}
        await JSONResponse(content, refusal.status, headers)(scope, receive, send)

    def _judge(self, scope: Scope) -> _Refusal | None:
        """Why the request's head is refused, or None."""
        headers = Headers(scope=scope)
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers.raw)
        if size > HEAD_BYTES:
            return _Refusal(431, f"the request's head has more than {HEAD_BYTES} bytes")
        match headers.getlist("host"):
            case [host] if self.hosts is None or host.lower() in self.hosts:
                pass
            case [_]:
                return _Refusal(421, "this server does not go by the name in Host")
            case _:
                return _Refusal(400, "exactly one Host header is needed")
        if "content-length" in headers and "transfer-encoding" in headers:
            return _Refusal(400, "Content-Length and Transfer-Encoding exclude one another")
        if scope["method"] not in _METHODS:
            return _Refusal(405, "no route has this method", allow="GET, HEAD")
        if int(headers.get("content-length", "0")) > BODY_BYTES:
            return _Refusal(413, _TOO_LARGE)
        return None


async def _drop_body(receive: Receive) -> _Refusal | None:
    """Read the body to its end, for only then can the connection be used again."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_BYTES:
            return _Refusal(413, _TOO_LARGE)
        if not message.get("more_body"):  # nor has a disconnect, after which answers go nowhere
            return None
