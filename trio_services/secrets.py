"""A text that is to be known, and not to be seen."""

from __future__ import annotations

import hmac

MASK = "***"


class Secret:
    """A text that no log, traceback or printed configuration shows; `reveal` gives it.

    It is equal to another one of the same text, and compared in a time that does not tell where
    they differ. It can be copied, and pickled: what is pickled holds the text.

    Args:
        text: what is to be kept.
    """

    # No attrs class: `attrs.asdict` of what holds it would open it.
    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself; give it to whoever needs it, and keep the secret."""
        return self.__text

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __len__(self) -> int:
        return len(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.__text), _bytes(other.__text))

    def __hash__(self) -> int:
        return hash(self.__text)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
