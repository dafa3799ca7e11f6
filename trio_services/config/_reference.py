"""The names of code in a configuration."""

from __future__ import annotations

import attrs

from ._problems import shown


@attrs.frozen
class CodeReference:
    """Code by its name: ``inbox.services:WatchFolder``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> CodeReference:
        """The code that a text names.

        Raises:
            ValueError: it is written in another way; says what was expected.
        """
        module, colon, name = text.partition(":")
        if text.startswith("."):
            raise ValueError(f'{shown(text)} is relative; expected "package.module:name"')
        parts = (*module.split("."), name)
        if not colon or not all(part.isidentifier() for part in parts):
            hint = ""
            before, dot, last = text.rpartition(".")
            if not colon and dot and all(part.isidentifier() for part in text.split(".")):
                hint = f"; did you mean {shown(f'{before}:{last}')}?"
            raise ValueError(
                f'{shown(text)} does not name code; expected "package.module:name"{hint}'
            )
        return cls(module, name)
