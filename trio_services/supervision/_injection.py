"""Services that get what they ask for by the types of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..lifecycle import HostInjector, Injector, JobCall
from ..services import AnyService, Service, factory_of
from ._supervisor import Supervisor


def check_injection(injector: HostInjector | Injector, services: Iterable[AnyService]) -> None:
    """See that services, and all below them, can get what they and their jobs ask for.

    What a factory makes is seen only when it is made.

    Raises:
        PlanError: with a line for each problem.
    """
    calls: list[Callable[..., object]] = []
    jobs: list[JobCall] = []
    todo = list(services)
    while todo:
        service = todo.pop()
        call = factory_of(service)
        if call is not None:
            calls.append(call)
        elif isinstance(service, Supervisor):
            todo += [child.service for child in service.children]
        elif isinstance(service, Service):
            jobs += service.job_calls()
    injector.check(*calls, jobs=jobs)
