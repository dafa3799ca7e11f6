"""Injection: what services and jobs ask for by the types of their parameters is made for them."""

from ._container import Container as Container
from ._providers import (
    HOST as HOST,
    JOB as JOB,
    SERVICE as SERVICE,
    Scope as Scope,
)
from ._scopes import HostScope as HostScope, JobScope as JobScope, ServiceScope as ServiceScope
