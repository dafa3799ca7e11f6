"""Test doubles in the place of services, and of what services ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from ..di import Container
from ..errors import UnknownService
from ..services import AnyService
from ..supervision import Child, Supervisor

Overrides = Mapping[object, object]
"""Doubles by what they take the place of: the path of a service, or a type that is asked for."""


def with_services(tree: Supervisor, doubles: Mapping[str, AnyService]) -> Supervisor:
    """A tree in which some services are others; their policies stay.

    Args:
        tree: all services.
        doubles: by path, with or without the name of the root.

    Raises:
        UnknownService: there is none with such a path.
    """
    wanted = {path.removeprefix(f"{tree.name}/"): double for path, double in doubles.items()}
    found: set[str] = set()
    replaced = _replaced(tree, "", wanted, found)
    _check(tree, wanted.keys() - found)
    return replaced


def with_values(container: Container | None, doubles: Overrides) -> Container | None:
    """A container in which some types are provided by others.

    Raises:
        PlanError: nothing provides such a type.
    """
    for provided, double in doubles.items():
        container = (container or Container()).override(provided, double)
    return container


def _replaced(
    tree: Supervisor, prefix: str, wanted: Mapping[str, AnyService], found: set[str]
) -> Supervisor:
    children: list[Child] = []
    for child in tree.children:
        path = prefix + child.name
        if path in wanted:
            found.add(path)
            children.append(attrs.evolve(child, service=wanted[path]))
        elif isinstance(child.service, Supervisor):
            below = _replaced(child.service, f"{path}/", wanted, found)
            children.append(attrs.evolve(child, service=below))
        else:
            children.append(child)
    return attrs.evolve(tree, children=children)


def _check(tree: Supervisor, unknown: Iterable[str]) -> None:
    for path in sorted(unknown):
        raise UnknownService(f"{tree.name} has no service {path!r} that could be overridden")
