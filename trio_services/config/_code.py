"""The code that a configuration names: found, imported, and looked at before it is used."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import stat
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from ..services import Service
from ._check import is_within
from ._problems import quoted, suggestion
from ._reference import CodeReference

# The files through which an import comes, and which are never where it failed.
_IMPORTERS = (__file__, importlib.__file__)


class CodeError(Exception):
    """The code that was named cannot be used; the message says why, for people."""


@attrs.define
class Importer:
    """Imports what a configuration names, and only from the packages that it may.

    Args:
        packages: `host.imports`.
        closed: whether it loads nothing that is not loaded already.
    """

    packages: tuple[str, ...]
    closed: bool = False
    _failed: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    _left_out: bool = attrs.field(default=False, init=False)

    def search_beside(self, folder: Path) -> None:
        """Let what lies beside the configuration file be imported, from wherever it is run.

        A folder that everybody can write to, such as ``/tmp``, is left out: anybody could put
        code there.
        """
        self._left_out = sys.platform != "win32" and bool(folder.stat().st_mode & stat.S_IWOTH)
        if not self._left_out and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # the first, as with `python FILE`

    def load(self, reference: CodeReference) -> object:
        """What a reference names.

        Raises:
            CodeError: there is no such thing, or importing it failed.
        """
        module = self._import(reference.module)
        try:
            code: object = getattr(module, reference.name)
        except AttributeError:
            near = suggestion(reference.name, [name for name in vars(module) if name[0] != "_"])
            raise CodeError(
                f"module {reference.module} has no {quoted(reference.name)}{near}"
            ) from None
        except Exception as error:
            raise CodeError(f"looking for {reference} failed: {told(error)}") from error
        home = getattr(code, "__module__", None)
        defined = isinstance(code, type) or inspect.isroutine(code)
        if defined and isinstance(home, str) and not is_within(home, self.packages):
            # Else a module that imports `os.system` for itself would offer it to the file.
            raise CodeError(
                f"{reference} comes from {home}, which is not in host.imports; "
                "add it there if this file may load it"
            )
        return code

    def _import(self, name: str) -> ModuleType:
        # Once only: a second attempt would run the module's code again, as far as it gets.
        if self.closed and name not in sys.modules:
            raise CodeError(
                f"{name} is not loaded, and a reload loads no code; restart the process"
            )
        if name not in self._failed:
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError as error:
                missing = error.name or ""
                if name == missing or name.startswith(f"{missing}."):
                    self._failed[name] = self._no_module(missing)
                else:
                    self._failed[name] = f"importing {name} failed: {told(error)}"
            except (Exception, SystemExit) as error:  # noqa: BLE001 -- other people's code
                self._failed[name] = f"importing {name} failed: {told(error)}"
        raise CodeError(self._failed[name])

    def _no_module(self, name: str) -> str:
        package, _, _ = name.rpartition(".")
        if package:
            folders = getattr(sys.modules.get(package), "__path__", ())
            siblings = [f"{package}.{module.name}" for module in pkgutil.iter_modules(folders)]
            return f"there is no module {name}{suggestion(name, siblings)}"
        if self._left_out:
            hint = "; the file's own folder is left out, since everybody can write to it"
            return f"there is no module {name} where Python looks{hint}"
        return f"there is no module {name} beside the file, or where Python looks"


def told(error: BaseException) -> str:
    """An error in one line: its type, its message, and the line of code that raised it."""
    if isinstance(error, SyntaxError):
        message, place = error.msg, f"{error.filename}:{error.lineno}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen ") and frame.filename not in _IMPORTERS
        ]
        message = str(error)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{text} ({place})" if place else text


def check_service(code: object, reference: CodeReference) -> None:
    """Refuse what cannot be a service.

    Raises:
        CodeError: it is neither a Service nor an async function.
    """
    if not isinstance(code, type):
        if not isinstance(code, Service):
            check_async(code, reference)
    elif not issubclass(code, Service):
        raise CodeError(f"{reference} is a class, but no Service; derive it from Service")
    elif inspect.isabstract(code):
        missing = ", ".join(sorted(code.__abstractmethods__))
        raise CodeError(f"{reference} is abstract; define its {missing}")
    elif not inspect.iscoroutinefunction(code.run):
        raise CodeError(f"the run of {reference} is not async; define it with `async def`")


def check_async(code: object, reference: CodeReference) -> None:
    """Refuse what is not an async function, by itself or once it is made.

    Raises:
        CodeError: it is not, or cannot be called at all.
    """
    if isinstance(code, type):
        if not _is_async_method(code):
            raise CodeError(f"{reference} is a class without an `async def __call__`")
    elif not callable(code):
        raise CodeError(f"{reference} is not callable; expected an async function or a class")
    elif not _is_async(code):
        raise CodeError(f"{reference} is not async; define it with `async def`")


def check_plain(code: object, reference: CodeReference, why: str) -> None:
    """Refuse what is not an ordinary function, by itself or once it is made.

    Args:
        code: the function or class.
        reference: its name.
        why: what asks for an ordinary one.

    Raises:
        CodeError: it is async, or cannot be called at all.
    """
    if not callable(code):
        raise CodeError(f"{reference} is not callable; expected a function or a class")
    if _is_async(code) or (isinstance(code, type) and _is_async_method(code)):
        raise CodeError(f"{reference} is async, but {why} needs a plain function (without async)")


def check_transient(code: object, reference: CodeReference) -> None:
    """Refuse what cannot say which failures may pass by themselves.

    Raises:
        CodeError: it is neither an exception nor a plain function.
    """
    fits = issubclass(code, Exception) if isinstance(code, type) else callable(code)
    if not fits or _is_async(code):
        raise CodeError(f"{reference} is neither an exception nor a plain function (without async)")


def check_call(
    function: Callable[..., object], reference: CodeReference, call: str, *gets: str
) -> None:
    """Refuse a function that does not take what it will be called with.

    Args:
        function: the function, with what the configuration gives it.
        reference: its name.
        call: what it is called as, in messages.
        gets: its positional arguments, by name.

    Raises:
        CodeError: it does not take so many.
    """
    try:
        inspect.signature(function).bind(*gets)
    except TypeError as error:
        raise CodeError(
            f"{reference} cannot be called as {call}({', '.join(gets)}): {error}"
        ) from error


def _is_async(code: Any) -> bool:
    while isinstance(code, partial):
        code = code.func
    # `@service` and other decorators wrap an async function in a plain one.
    return inspect.iscoroutinefunction(inspect.unwrap(code)) or _is_async_method(code.__class__)


def _is_async_method(kind: type) -> bool:
    """Whether the instances of a class are called like async functions."""
    return inspect.iscoroutinefunction(getattr(kind, "__call__", None))  # noqa: B004
