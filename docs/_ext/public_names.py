"""What autodoc finds, in the words that a user knows.

The code lives in private files behind the doors of its rooms, so Sphinx meets
`trio_services.host._host.Host` where a user knows `trio_services.Host`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PACKAGE = "trio_services"

# What is written in a signature, and what a reader wants to see there.
_SHORTER = (
    (re.compile(r"TypeAliasForwardRef\('(\w+)'\)"), r"\1"),
    (re.compile(r"<class '(\w+)'>"), r"\1"),
    # Defaults that are made later, by attrs or by Python.
    (re.compile(r"\bNOTHING\b|<factory>|Factory\((?:[^()]|\([^()]*\))*\)|<built-in [^>]*>"), "..."),
)
# What `as` gives, where autodoc shows what makes a context manager.
_YIELDED = re.compile(r"(?:~?[\w.]+\.)?(?:Async)?Generator\[(?P<what>.*?)(?:, None)+\]")

_kept: dict[str, list[str]] = {}  # docstrings of attributes, while Napoleon has them


def shorten(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """A signature without what only its implementation knows."""
    for written, shown in _SHORTER:
        signature = signature and written.sub(shown, signature)
        returns = returns and written.sub(shown, returns)
    if returns and (yielded := _YIELDED.fullmatch(returns)):
        returns = yielded["what"]
    return signature, returns


def keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Remember the docstring of an attribute, before Napoleon takes a colon in it for a type."""
    if what in ("attribute", "data", "property"):
        _kept[name] = list(lines)


def restore(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Put the docstring of an attribute back as it was."""
    if what in ("attribute", "data", "property"):
        lines[:] = _kept.pop(name)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """The documentation of a name that was written in another way."""
    if node.get("refdomain") != "py":
        return None
    domain: Any = env.domains["py"]
    for name in _spellings(node["reftarget"]):
        if name in domain.objects:
            found: nodes.reference | None = domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", name, node, content
            )
            return found
    return None


def _spellings(target: str) -> Iterator[str]:
    """The public names that a reference may mean, the likeliest first."""
    parts = target.split(".")
    if parts[0] != PACKAGE:
        yield f"{PACKAGE}.{target}"
        parts = [PACKAGE, *parts]
    yield f"{PACKAGE}.{parts[-1]}"
    if len(parts) > 2:
        yield f"{PACKAGE}.{parts[1]}.{parts[-1]}"
        yield f"{PACKAGE}.{'.'.join(parts[-2:])}"


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", keep, priority=400)  # Napoleon's is 500
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
