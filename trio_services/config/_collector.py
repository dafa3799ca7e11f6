"""What is wrong with an application, all of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import attrs

from ..errors import EmbeddedUnavailable, PlanError, SchemaMismatch
from ._code import CodeError
from ._problems import Problem
from ._structure import StructureError


@attrs.define
class Collector:
    """Keeps problems, so that the rest is checked too."""

    problems: list[Problem] = attrs.field(factory=list[Problem])

    @contextmanager
    def collecting(self, *key: str | int) -> Generator[None]:
        """Go on after a problem with what a key names."""
        try:
            yield
        except CodeError as error:
            self.problems.append(Problem(key, str(error)))
        except PlanError as error:  # which tells each problem on a line of its own
            self.problems += [Problem(key, line) for line in str(error).splitlines()]
        except StructureError as error:
            self.problems += error.problems
        except EmbeddedUnavailable as error:
            self.problems.append(Problem(key, str(error)))
        except SchemaMismatch as error:
            self.problems += [Problem(key, line) for line in str(error).splitlines()]
