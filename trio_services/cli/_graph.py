"""What `graph` draws: who runs, what for, after whom, and the queues between them."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import attrs

from ..config import Application, Configuration
from ..queues import Schedule, Workers, WorkQueue
from ..services import ServiceCall


@attrs.frozen
class Node:
    """One service, pool of workers or schedule.

    Args:
        name: its name.
        kind: ``"service"``, ``"workers"`` or ``"schedule"``.
        code: what the file names.
        duty: what it is responsible for: the first line of its code's docstring.
        after: what has to be ready before.
        takes_from: the queue that it works on.
        puts_to: the queues that it feeds, or that its code asks for.
        needs: what is made for it and its jobs by the container, by type.
    """

    name: str
    kind: str
    code: str
    duty: str
    after: tuple[str, ...]
    takes_from: tuple[str, ...]
    puts_to: tuple[str, ...]
    needs: tuple[str, ...]


@attrs.frozen
class Graph:
    """The whole application."""

    name: str
    nodes: tuple[Node, ...]
    queues: tuple[str, ...]


_KINDS = {"services": "service", "workers": "workers", "schedules": "schedule"}
_CODE = {"services": "use", "workers": "handler", "schedules": "call"}


def graph_of(configuration: Configuration, application: Application) -> Graph:
    """The graph of an application."""
    services = {child.name: child.service for child in application.tree.children}
    nodes = [
        Node(child.name, "database", "", "Lends connections.", (), (), (), ())
        for child in application.tree.children
        if child.name not in application.parts
    ]
    for (group, name), table in configuration.tables.children.items():
        service = services[str(name)]
        code: Any = service
        injection = application.injection
        needs = [] if injection is None else injection.needs(service)
        takes_from: tuple[str, ...] = ()
        fed: tuple[str, ...] = ()
        if isinstance(service, Workers):
            workers: Workers[Any] = service  # pyright: ignore[reportUnknownVariableType]
            code = workers.handler
            takes_from, fed = (workers.queue.name,), tuple(queue.name for queue in workers.feeds)
        elif isinstance(service, Schedule):
            code = service.call
        nodes.append(
            Node(
                name=str(name),
                kind=_KINDS[str(group)],
                code=str(getattr(table, _CODE[str(group)])),
                duty=_duty(code),
                after=application.parts[str(name)].child.after,
                takes_from=takes_from,
                puts_to=tuple(dict.fromkeys((*fed, *_given_queues(code)))),
                needs=tuple(kind.__qualname__ for kind in needs),
            )
        )
    return Graph(application.tree.name, tuple(nodes), tuple(application.queues))


def _given_queues(code: Any) -> Iterator[str]:
    """The queues that the configuration gives to some code."""
    if isinstance(code, partial):
        given: Mapping[str, object] = code.keywords
        yield from (value.name for value in given.values() if isinstance(value, WorkQueue))


def _duty(code: Any) -> str:
    """The first line of the docstring of some code, if it was written for it."""
    while isinstance(code, (partial, ServiceCall)):
        code = code.func if isinstance(code, partial) else code.function
    documented = code if inspect.isroutine(code) or isinstance(code, type) else type(code)
    text: str = inspect.cleandoc(documented.__doc__ or "")
    made = dataclasses.is_dataclass(documented) and text.startswith(f"{documented.__name__}(")
    return "" if made else text.partition("\n")[0].strip()


# -- drawings ------------------------------------------------------------------------------


def as_json(graph: Graph) -> str:
    """For programs."""
    return json.dumps(attrs.asdict(graph), ensure_ascii=False)


def as_text(graph: Graph) -> str:
    """A tree, for people."""
    lines = [graph.name]
    names = max(len(node.name) for node in graph.nodes)
    kinds = max(len(node.kind) for node in graph.nodes)
    for node in graph.nodes:
        last = node is graph.nodes[-1]
        what = node.duty or node.code
        lines.append(
            f"{'└──' if last else '├──'} {node.name:<{names}}  {node.kind:<{kinds}}  {what}"
        )
        relations = [
            f"{words} {' and '.join(others)}"
            for words, others in (
                ("after", node.after),
                ("takes from", node.takes_from),
                ("puts to", node.puts_to),
                ("needs", node.needs),
            )
            if others
        ]
        if relations:
            lines.append(f"{' ' if last else '│'}       {', '.join(relations)}")
    return "\n".join(lines)


def as_dot(graph: Graph) -> str:
    """For Graphviz."""

    def text(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    lines = [f"digraph {text(graph.name)} {{", "  rankdir=LR", "  node [shape=box]"]
    for node in graph.nodes:
        label = text(node.name)[:-1] + "\\n" + text(node.duty or node.code)[1:]
        lines.append(f"  {text(node.name)} [label={label}]")
    lines += [
        f"  {text(f'queue {name}')} [label={text(name)} shape=cylinder]" for name in graph.queues
    ]
    lines += [
        f"  {text(f'type {name}')} [label={text(name)} shape=ellipse]" for name in _types(graph)
    ]
    for node in graph.nodes:
        me = text(node.name)
        lines += [f"  {me} -> {text(name)} [label=after style=dashed]" for name in node.after]
        lines += [f"  {text(f'queue {name}')} -> {me}" for name in node.takes_from]
        lines += [f"  {me} -> {text(f'queue {name}')}" for name in node.puts_to]
        lines += [f"  {me} -> {text(f'type {n}')} [label=needs style=dotted]" for n in node.needs]
    return "\n".join([*lines, "}"])


def as_mermaid(graph: Graph) -> str:
    """For Mermaid, which Markdown on many sites draws."""

    def text(value: str) -> str:
        for char, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
            value = value.replace(char, entity)
        return value

    # Names may hold what means something else there, and may be its words, such as `end`.
    ids = {node.name: f"s{number}" for number, node in enumerate(graph.nodes)}
    queues = {name: f"q{number}" for number, name in enumerate(graph.queues)}
    lines = ["flowchart LR"]
    for node in graph.nodes:
        label = f"{text(node.name)}<br/>{text(node.duty or node.code)}"
        lines.append(f'  {ids[node.name]}["{label}"]')
    lines += [f'  {queues[name]}[("{text(name)}")]' for name in graph.queues]
    types = {name: f"t{number}" for number, name in enumerate(_types(graph))}
    lines += [f'  {types[name]}(["{text(name)}"])' for name in types]
    for node in graph.nodes:
        me = ids[node.name]
        lines += [f"  {me} -. after .-> {ids[name]}" for name in node.after]
        lines += [f"  {queues[name]} --> {me}" for name in node.takes_from]
        lines += [f"  {me} --> {queues[name]}" for name in node.puts_to]
        lines += [f"  {me} -. needs .-> {types[name]}" for name in node.needs]
    return "\n".join(lines)


def _types(graph: Graph) -> list[str]:
    """What the container makes for anybody."""
    return list(dict.fromkeys(name for node in graph.nodes for name in node.needs))
