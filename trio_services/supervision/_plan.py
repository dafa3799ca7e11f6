"""Whether a tree can be run as written, and how long it takes to stop. Pure.

Theory: the children of a supervisor and their `after` are a graph. A start walks it from the
dependencies to the dependents, a stop the other way: a child is told to stop when all that come
after it have ended. In the worst case each takes all of its `stop_within`, so that the worst stop
is the longest path through the graph, each child weighing its `stop_within`; that of a nested
supervisor is its own worst stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from ..errors import PlanError
from ._child import Child


def check_children(supervisor: str, children: Sequence[Child]) -> None:
    """Refuse children that cannot be run together.

    Raises:
        PlanError: names that are used twice, dependencies that do not exist, or a cycle of them.
    """
    known: set[str] = set()
    problems: list[str] = []
    for child in children:
        if child.name in known:
            problems.append(f"{supervisor}: two children are named {child.name!r}; give one name=")
        known.add(child.name)
    for child in children:
        for name in child.after:
            if name == child.name:
                problems.append(f"{supervisor}/{name} comes after itself")
            elif name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                problems.append(
                    f"{supervisor}/{child.name} comes after {name!r}, "
                    f"which is no child of {supervisor}{hint}"
                )
    if not problems and (cycle := _cycle(children)):
        problems.append(f"{supervisor}: each of these comes after the next: {' → '.join(cycle)}")
    if problems:
        raise PlanError("\n".join(problems))


def stop_within(child: Child, default: float) -> float:
    """Seconds that a child has for its stop: its own say, what a supervisor needs, the default."""
    if child.stop_within is not None:
        return child.stop_within
    return float(getattr(child.service, "worst_stop", default))


def worst_stop(children: Sequence[Child], default: float) -> float:
    """Seconds that the stop of these children takes when each uses all of its time."""
    within = {child.name: stop_within(child, default) for child in children}
    if not any(child.after for child in children):
        return max(within.values(), default=0.0)
    # How long it takes, from the beginning of the stop, until a child and all after it have ended.
    ended: dict[str, float] = {}
    dependents: dict[str, list[str]] = {name: [] for name in within}
    for child in children:
        for name in child.after:
            dependents[name].append(child.name)
    for name in TopologicalSorter(dependents).static_order():
        ended[name] = within[name] + max((ended[other] for other in dependents[name]), default=0.0)
    return max(ended.values())


def check_budget(supervisor: str, worst: float, budget: float) -> None:
    """Refuse a tree that may need more time to stop than there is.

    Raises:
        PlanError: the worst stop is longer than the budget.
    """
    if worst > budget and not math.isclose(worst, budget):  # sums of floats are a hair off
        raise PlanError(
            f"{supervisor} may need {worst:g} s to stop, but has {budget:g} s: lower the "
            "stop_within of services that come after each other, or raise the budget"
        )


def _cycle(children: Sequence[Child]) -> list[str]:
    if not any(child.after for child in children):
        return []
    try:
        TopologicalSorter({child.name: child.after for child in children}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []
