"""What a configuration gives to the code that it names: options and queues, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import attrs
from cattrs import Converter

from ..queues import WorkQueue
from ._code import CodeError
from ._live import Live
from ._problems import KeyPath, Problem, quoted, suggestion
from ._reference import CodeReference
from ._schema import Options
from ._structure import StructureError, structure
from ._types import is_class, optional

if TYPE_CHECKING:
    from ..pg import Pool

_OPTIONS = "options"


@attrs.define
class Supplies:
    """What one table has to give to the code that it names.

    Args:
        key: where the table is.
        options: its `options`; None where it has none.
        queues: all queues, by name.
        converter: from `strict_converter`.
        pool: of connections to the database; None if there is none.
        injected: whether there is a container, which gives what the table cannot.

    Attributes:
        made: the options, for each piece of code that asked for them.
        live: for each of these, what holds them where they may change; else None.
        asked_for_pool: whether some of the code asked for the pool.
    """

    key: KeyPath
    options: Options | None
    queues: Mapping[str, WorkQueue[Any]]
    converter: Converter
    pool: Pool | None = None
    injected: bool = False
    made: list[object] = attrs.field(factory=list[object], init=False)
    live: list[Live[Any] | None] = attrs.field(factory=list["Live[Any] | None"], init=False)
    asked_for_pool: bool = attrs.field(default=False, init=False)
    _asked: bool = attrs.field(default=False, init=False)

    def arguments(
        self,
        code: object,
        reference: CodeReference,
        field: str,
        *,
        leading: int = 0,
        injected: bool = True,
    ) -> dict[str, object]:
        """The arguments that a class or an async function asks for.

        A parameter `options` gets the table's options, structured into the class that it is
        annotated with; one that is annotated as `WorkQueue[…]` gets the queue of its own name,
        and one that is annotated as `pg.Pool` the pool of the database.
        Whatever else has a default keeps it.

        Args:
            code: the class or function.
            reference: what it is called in messages.
            field: the key in the table that names it.
            leading: how many of its parameters are not the configuration's to give.
            injected: whether it is called where a container can give what the table cannot.

        Raises:
            StructureError: with everything that it asks for in vain.
        """
        filled: dict[str, object] = {}
        problems: list[Problem] = []
        try:
            parameters = list(_parameters(code, leading))
        except CodeError as error:
            raise StructureError([Problem((*self.key, field), f"{reference}: {error}")]) from error
        for parameter, annotation in parameters:
            try:
                value = self._value(parameter, annotation, injected=self.injected and injected)
            except CodeError as error:
                problems.append(Problem((*self.key, field), f"{reference} {error}"))
            except StructureError as error:
                problems += error.problems
            else:
                if value is not Parameter.empty:
                    filled[parameter.name] = value
        if problems:
            raise StructureError(problems)
        return filled

    def unasked(self) -> list[Problem]:
        """The problem of options that none of the code has asked for, if it is one."""
        if self.options is None or self._asked:
            return []
        return [Problem((*self.key, _OPTIONS), "its code takes no options")]

    def of_type(self, kind: Any) -> object:
        """The table's options as what some code gets by their class.

        Raises:
            StructureError: they do not fit.
        """
        self._asked = True
        options = Options({}) if self.options is None else self.options
        made: object = structure(self.converter, options, kind, (*self.key, _OPTIONS))
        self.made.append(made)
        self.live.append(None)
        return made

    def _value(self, parameter: Parameter, annotation: object, *, injected: bool) -> object:
        """What a parameter gets; `Parameter.empty` where that is not for the table to say."""
        name = parameter.name
        has_default = parameter.default is not Parameter.empty
        if parameter.kind is not Parameter.POSITIONAL_ONLY:
            if name == _OPTIONS:
                self._asked = True
                if self.options is None and has_default:
                    return Parameter.empty
                return self._structured(annotation)
            if (get_origin(annotation) or annotation) is WorkQueue:
                if name in self.queues:
                    return self.queues[name]
                if not has_default:
                    near = suggestion(name, self.queues) or f"; add a [queues.{name}] table"
                    raise CodeError(f"asks for a queue {quoted(name)}, which does not exist{near}")
            if self.pool is not None and annotation is type(self.pool):
                self.asked_for_pool = True
                return self.pool
        if has_default or injected:
            return Parameter.empty
        written = parameter.replace(annotation=annotation)
        remedy = "give it a default, or take it from `options`"
        if self.injected:
            remedy += "; what a container gives is not there yet when this is made"
        if name in self.queues:
            remedy = f"annotate it as a WorkQueue to get [queues.{name}]"
        raise CodeError(f"asks for `{written}`, which no configuration can give; {remedy}")

    def _structured(self, annotation: Any) -> object:
        is_live = get_origin(annotation) is Live
        if is_live:
            (annotation,) = get_args(annotation)
        if not is_class(annotation):
            raise CodeError("has to annotate its `options` with an attrs class or a dataclass")
        options = Options({}) if self.options is None else self.options
        made: object = structure(self.converter, options, annotation, (*self.key, _OPTIONS))
        live = Live(made) if is_live else None
        self.made.append(made)
        self.live.append(live)
        return live or made


def _parameters(code: Any, leading: int) -> Iterator[tuple[Parameter, object]]:
    """The parameters of some code that a configuration may fill, with their types.

    Raises:
        CodeError: the annotations cannot be resolved.
    """
    try:
        parameters = list(inspect.signature(code).parameters.values())
    except ValueError:  # some classes written in C have no signature
        return
    try:
        types = get_type_hints(_annotated(code), include_extras=True)
    except Exception as error:
        hint = "; is it imported for type checkers only?" if isinstance(error, NameError) else ""
        raise CodeError(f"its annotations do not resolve: {error}{hint}") from error
    for position, parameter in enumerate(parameters):
        positional = parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        starred = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if (positional and position < leading) or starred or parameter.name == "task_status":
            continue
        annotation = optional(types.get(parameter.name, Parameter.empty))
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        yield parameter, annotation


def _annotated(code: Any) -> Any:
    """The function whose annotations are those of some code."""
    if isinstance(code, partial):
        return _annotated(code.func)
    if inspect.isclass(code):
        return inspect.getattr_static(code, "__init__")
    return code if inspect.isroutine(code) else type(code).__call__
