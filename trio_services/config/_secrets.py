"""Secrets in a configuration: the file says where each is, and they are read from there."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import attrs

from ..secrets import MASK, Secret
from ._disk import UnreadableError, read_regular_file
from ._overrides import Given, is_text
from ._problems import MisfitError, Problem, is_table, one_line, quoted

WHERE = '{ env = "NAME" } or { file = "PATH" }'
"""How a secret is written."""

_LARGEST = 64 * 1024  # bytes: of keys and certificates, but not of a file that was mistaken


@attrs.frozen
class Place:
    """Where a secret is: in a variable, or in a file; the other is empty."""

    variable: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"environment {self.variable}" if self.variable else f"file {self.file}"


@attrs.define
class Secrets:
    """Reads secrets, and knows afterwards what must not be told.

    Args:
        folder: what relative paths are relative to.
        environment: the variables.

    Attributes:
        places: what was read from where.
        latest: the same, since somebody emptied it.
    """

    folder: Path
    environment: Mapping[str, str] = attrs.field(repr=False)
    places: dict[Place, Secret] = attrs.field(factory=dict[Place, Secret], init=False)
    latest: dict[Place, Secret] = attrs.field(factory=dict[Place, Secret], init=False)
    _given: list[Secret] = attrs.field(factory=list[Secret], init=False)

    def structure(self, value: object, _: object) -> Secret:
        """The secret that a value says, or says the place of.

        Raises:
            MisfitError: it is in clear text, or there is none; does not show what there is.
        """
        if isinstance(value, Given) and not is_table(value.value):
            if not value.private:
                raise MisfitError(f"a secret in an argument, which others can see; write {WHERE}")
            self._given.append(secret := Secret(value.text))
            return secret
        return self.read(place_of(value))

    def read(self, place: Place) -> Secret:
        """What is at a place now.

        Raises:
            MisfitError: there is nothing.
        """
        text = self._from_variable(place) if place.variable else self._from_file(place)
        self.places[place] = self.latest[place] = secret = Secret(text)
        return secret

    def redact(self, problem: Problem) -> Problem:
        """The problem without the secrets that other people's code may have told in it."""
        text = problem.text
        for secret in (*self._given, *self.places.values()):
            plain = secret.reveal()
            for shown in (plain, repr(plain)[1:-1], quoted(plain)[1:-1]):
                text = text.replace(shown, MASK)
        return attrs.evolve(problem, text=text)

    def _from_variable(self, place: Place) -> str:
        text = self.environment.get(place.variable)
        name = one_line(place.variable)
        if text is None:
            raise MisfitError(f"the environment has no {name}; set it")
        if not text:
            raise MisfitError(f"{name} is empty in the environment")
        if not is_text(text):
            raise MisfitError(f"{name} in the environment is not UTF-8 text")
        return text

    def _from_file(self, place: Place) -> str:
        try:
            data = read_regular_file(
                self.folder / place.file,
                largest=_LARGEST,
                expected="a file with a secret",
                check=_check_writers,
            )
        except UnreadableError as error:
            raise MisfitError(f"{place.file}: {error}") from error
        try:
            text = data.decode().rstrip("\r\n")  # which editors add, and `echo`
        except UnicodeDecodeError:
            raise MisfitError(f"{place.file}: it is not UTF-8 text") from None
        if len(data) > _LARGEST:
            raise MisfitError(f"{place.file}: it is too large; expected at most 64 KiB")
        if not text:
            raise MisfitError(f"{place.file}: it is empty")
        return text


def place_of(value: object) -> Place:
    """The place that a value says.

    Raises:
        MisfitError: it says none, or holds the secret itself; does not show what there is.
    """
    if isinstance(value, Given):
        value = value.value
    if not is_table(value):
        raise MisfitError(f"a secret in clear text; write {WHERE}")
    match {key: item.text if isinstance(item, Given) else item for key, item in value.items()}:
        case {"env": str(name), **others} if name and not others:
            return Place(variable=name)
        case {"file": str(name), **others} if name and not others:
            return Place(file=name)
        case _:
            raise MisfitError(f"not where a secret is; expected {WHERE}")


def _check_writers(status: os.stat_result) -> None:
    # Others may be meant to read it: a container's user is often another one than who mounts it.
    if os.name == "posix" and status.st_mode & stat.S_IWOTH:
        raise UnreadableError("everybody can write to it; take that right away")
