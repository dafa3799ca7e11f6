"""Text that may be a secret, and so need not be in the file. Pure, but for `read`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from ._problems import quoted


@attrs.frozen
class SecretText:
    """Text, or where it is found.

    Args:
        where: whether `value` is the text, the environment variable that holds it, or the path of
            the file that holds it.
        value: one of these.
    """

    where: Literal["here", "env", "file"]
    value: str = attrs.field(repr=False)

    def read(self, environment: Mapping[str, str]) -> str:
        """The text; a newline at the end of a file does not count.

        Raises:
            ValueError: it is not there; says where it was looked for.
        """
        if self.where == "here":
            return self.value
        if self.where == "env":
            text, name = environment.get(self.value, ""), f"variable {quoted(self.value)}"
        else:
            text, name = _content(self.value), self.value
        if not text:
            raise ValueError(f"{name} is not set or empty")
        return text


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
