"""The application behind the guard: probes, metrics and the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..lifecycle import HealthStatus
from ..telemetry import HealthReport, Readings
from ._api import as_status
from ._guard import Guard


class Program(Protocol):
    """What is asked of the program that is told about; a `Host` has it all."""

    @property
    def was_ready(self) -> bool:
        """Whether all services became ready, whatever happened since."""
        ...

    def unready(self) -> Sequence[str]:
        """Why it is not ready, one short line each; nothing when it is. Must not block."""
        ...

    async def health(self) -> HealthReport:
        """How well each service is, in less than the time that a client has."""
        ...

    def readings(self) -> Readings:
        """What metrics are made of. Must not block."""
        ...

    async def measure_lag(self) -> None:
        """Measure how late the event loop is, for the `readings`; never returns."""
        ...


def build_app(program: Program, hosts: frozenset[str] | None) -> Starlette:
    """The ASGI application that answers the probes, and 404 to all else.

    Args:
        program: What is told about.
        hosts: The `Host` headers that are answered; None for any one.
    """
    probes, readings = _Probes(program), _Readings(program)
    app = Starlette(
        routes=[
            Route("/live", probes.live),
            Route("/startup", probes.startup),
            Route("/ready", probes.ready),
            Route("/health", probes.health),
            Route("/metrics", readings.metrics),
            Route("/api/v1/status", readings.status),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={HTTPException: _failed, Exception: _failed},
    )
    app.router.redirect_slashes = False  # `/live/` is 404 like any other path
    return app


@attrs.frozen
class _Probes:
    program: Program

    async def live(self, _: Request) -> Response:
        await trio.lowlevel.checkpoint()  # a turn of the loop: no more is claimed by the answer
        return JSONResponse({"status": "alive"})

    async def startup(self, _: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if self.program.was_ready:
            return JSONResponse({"status": "started"})
        return _not("started", _reasons(self.program))

    async def ready(self, _: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if because := _reasons(self.program):
            return _not("ready", because)
        report = await self.program.health()
        if because := report.unhealthy:
            return _not("ready", because)
        if because := report.degraded:
            return JSONResponse({"status": "degraded", "because": _texts(because)})
        return JSONResponse({"status": "ready"})

    async def health(self, _: Request) -> Response:
        report = await self.program.health()
        services = [
            {
                "name": one.name,
                "state": one.state,
                "critical": one.critical,
                "status": one.health.status.name.lower(),
                "reason": _text(one.health.reason),
            }
            for one in report.services
        ]
        status = 503 if report.status is HealthStatus.UNHEALTHY else 200
        return JSONResponse({"status": report.status.name.lower(), "services": services}, status)


@attrs.frozen
class _Readings:
    """Answers for which much may have to be written down."""

    program: Program
    # One at a time: more at once would take longer, and the threads from others.
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def metrics(self, _: Request) -> Response:
        from ..telemetry import CONTENT_TYPE, as_openmetrics  # which is slow to import

        return Response(await self._written(as_openmetrics), media_type=CONTENT_TYPE)

    async def status(self, _: Request) -> Response:
        return Response(await self._written(as_status), media_type="application/json")

    async def _written(self, write: Callable[[Readings], bytes]) -> bytes:
        # What was read does not change, and so can be written down beside the event loop.
        return await trio.to_thread.run_sync(
            write, self.program.readings(), limiter=self.limiter, abandon_on_cancel=True
        )


def _not(what: str, because: Sequence[str]) -> Response:
    return JSONResponse({"status": f"not {what}", "because": _texts(because)}, 503)


def _reasons(program: Program) -> Sequence[str]:
    try:
        return program.unready()
    except Exception as error:  # noqa: BLE001 -- a broken check is an answer: not ready
        # Only the type: messages may hold passwords and paths.
        return [f"the readiness check failed: {type(error).__name__}"]


def _texts(lines: Sequence[str]) -> list[str]:
    return [_text(line) for line in lines]


def _text(line: str) -> str:
    # A lone surrogate, from a file name for example, would not encode.
    return line.encode("utf-8", "replace").decode()


async def _failed(_: Request, error: Exception) -> Response:
    """What went wrong, as its status and nothing more; Starlette logs our own faults."""
    await trio.lowlevel.checkpoint()
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
    else:
        status, headers = 500, None
    return JSONResponse({"status": HTTPStatus(status).phrase.lower()}, status, headers)
