"""The admin server: probes and metrics, over loopback or a unix socket."""

from typing import TYPE_CHECKING

from ._bind import Bind as Bind

if TYPE_CHECKING:
    from ._app import Program as Program
    from ._server import AdminUnavailable as AdminUnavailable, serve_admin as serve_admin
else:

    def __getattr__(name):
        # Starlette and Hypercorn are slow to import: only a program that serves pays for them.
        if name in {"AdminUnavailable", "serve_admin"}:
            from . import _server

            return getattr(_server, name)
        if name == "Program":
            from . import _app

            return _app.Program
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["AdminUnavailable", "Bind", "Program", "serve_admin"]
