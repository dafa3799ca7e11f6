"""The host: composes a tree of services into an application, and runs it."""

from ._guard import GUARD_AFTER as GUARD_AFTER
from ._host import (
    Companion as Companion,
    Host as Host,
    open_host as open_host,
    serve as serve,
    with_logger as with_logger,
)
from ._run import HostSettings as HostSettings, run as run
