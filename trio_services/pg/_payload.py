"""Items as JSON, within limits that hold everywhere the payload is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn, cast

from cattrs.preconf.json import JsonConverter, make_converter

from ..errors import BadPayload

LARGEST = 1024 * 1024  # bytes of JSON
_DEEPEST = 32
_SAFE_INTEGER = 2**53  # beyond it, readers that know only doubles see another number

Upgrade = Callable[[Any, int], Any]
"""Makes the JSON of an older version, which is its second argument, that of the present one."""


class Codec:
    """Makes payloads of items, and items of payloads.

    Args:
        queue: whose items they are; for errors.
        version: of what is written.
        upgrade: for what was written by older versions.
    """

    def __init__(self, queue: str, version: int, upgrade: Upgrade | None) -> None:
        self.version = version
        self._queue = queue
        self._upgrade = upgrade
        self._converter = _converter()

    def encode(self, item: object, type_: Any) -> str:
        """The JSON of an item.

        Raises:
            BadPayload: it cannot be told in JSON, or is too large or too deep.
        """
        try:
            value = self._converter.unstructure(item, type_)
            self._check(value, "", 0)
        except BadPayload:
            raise
        except RecursionError:
            self._refuse("", f"it is nested more than {_DEEPEST} deep")
        except Exception as error:
            raise BadPayload(self._queue, "", str(error) or type(error).__name__) from error
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if (size := len(text.encode())) > LARGEST:
            self._refuse("", f"it has {size:,} bytes as JSON, and at most {LARGEST:,} may be put")
        return text

    def decode(self, payload: str, version: int, type_: Any) -> Any:
        """The item of a payload.

        Raises: whatever is wrong with it, as a subclass of `Exception`.
        """
        value = json.loads(payload)
        if version != self.version:
            if version > self.version or self._upgrade is None:
                raise ValueError(
                    f"the payload is of version {version}, and this program reads {self.version}"
                )
            value = self._upgrade(value, version)
        return value if type_ is Any else self._converter.structure(value, type_)

    def check_key(self, key: str) -> None:
        """Refuse what cannot be a unique key.

        Raises:
            BadPayload: it is empty or too long, or PostgreSQL would not store it.
        """
        if not 0 < len(key.encode(errors="replace")) <= 1000:
            self._refuse("", "a unique key is a text of 1 … 1,000 bytes")
        self._check_text(key, "unique")

    def _check(self, value: object, where: str, depth: int) -> None:
        if value is None or isinstance(value, bool):
            return
        if isinstance(value, str):
            self._check_text(value, where)
        elif isinstance(value, int):
            if abs(value) > _SAFE_INTEGER:
                self._refuse(where, f"{value} is beyond 2^53: put it as text")
        elif isinstance(value, float):
            if not math.isfinite(value):
                self._refuse(where, f"{value} is no number in JSON")
        elif depth >= _DEEPEST:
            self._refuse(where, f"it is nested more than {_DEEPEST} deep")
        elif isinstance(value, dict):
            for key, one in cast("dict[object, object]", value).items():
                if not isinstance(key, str):
                    self._refuse(where, f"the key {key!r} is not text")
                self._check_text(key, where)
                self._check(one, f"{where}.{key}" if where else key, depth + 1)
        elif isinstance(value, (list, tuple)):
            for index, one in enumerate(cast("list[object]", value)):
                self._check(one, f"{where}[{index}]", depth + 1)
        else:
            self._refuse(where, f"an object of type {type(value).__name__} has no form in JSON")

    def _check_text(self, text: str, where: str) -> None:
        if "\0" in text:
            self._refuse(where, "it holds a NUL, which PostgreSQL does not store")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            self._refuse(where, "it holds half of a surrogate pair")

    def _refuse(self, where: str, reason: str) -> NoReturn:
        raise BadPayload(self._queue, where, reason)


def _converter() -> JsonConverter:
    converter = make_converter()
    converter.register_unstructure_hook(datetime, _tell_time)
    for kind in (bytes, bytearray, memoryview):
        converter.register_unstructure_hook(kind, _refuse_bytes)
    return converter


def _tell_time(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.isoformat()


def _refuse_bytes(_: object) -> NoReturn:
    raise ValueError("bytes have no form in JSON: put them as text, such as base64")
