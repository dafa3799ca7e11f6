"""The application behind the guard: two probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ._guard import Guard


def build_app(
    unready: Callable[[], Sequence[str]],
    degraded: Callable[[], Sequence[str]],
    hosts: frozenset[str] | None,
) -> Starlette:
    """The ASGI application that answers `/live` and `/ready`, and 404 to all else.

    Args:
        unready: The reasons why the program is not ready, one short line each; none when it is.
            It is called in the event loop for each probe, so it must not block.
        degraded: What it does without while it is ready, likewise.
        hosts: The `Host` headers that are answered; None for any one.
    """

    async def live(_: Request) -> Response:
        await trio.lowlevel.checkpoint()  # a turn of the loop: no more is claimed by the answer
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if because := _reasons(unready):
            return JSONResponse({"status": "not ready", "because": because}, 503)
        if because := _reasons(degraded):
            return JSONResponse({"status": "degraded", "because": because})
        return JSONResponse({"status": "ready"})

    app = Starlette(
        routes=[Route("/live", live), Route("/ready", ready)],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={HTTPException: _failed, Exception: _failed},
    )
    app.router.redirect_slashes = False  # `/live/` is 404 like any other path
    return app


def _reasons(unready: Callable[[], Sequence[str]]) -> list[str]:
    try:
        # A lone surrogate, from a file name for example, would not encode.
        return [str(line).encode("utf-8", "replace").decode() for line in unready()]
    except Exception as error:  # noqa: BLE001 -- a broken check is an answer: not ready
        # Only the type: messages may hold passwords and paths.
        return [f"the readiness check failed: {type(error).__name__}"]


async def _failed(_: Request, error: Exception) -> Response:
    """What went wrong, as its status and nothing more; Starlette logs our own faults."""
    await trio.lowlevel.checkpoint()
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
    else:
        status, headers = 500, None
    return JSONResponse({"status": HTTPStatus(status).phrase.lower()}, status, headers)
