"""What a running application answers to a probe; it starts up nothing, not even Trio."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Literal

import attrs

from ._client import connection_to

if TYPE_CHECKING:
    from ..admin import Bind

Question = Literal["live", "ready"]


@attrs.frozen
class Answer:
    """What the application says: whether it is so, and in a line, why."""

    ok: bool
    text: str


def ask(question: Question, bind: Bind, *, within: float) -> Answer:
    """Ask at an admin address. Blocks.

    Args:
        question: whether it is alive, or ready.
        bind: the address.
        within: seconds for each step of asking; > 0.

    Raises:
        click.UsageError: nobody can listen there.
    """
    connection = connection_to(bind, within)
    try:
        connection.request("GET", f"/{question}")
        response = connection.getresponse()
        told = json.loads(response.read())
        text = "; ".join([told["status"], *told.get("because", ())])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        return Answer(False, f"no answer: {str(error) or type(error).__name__}")
    finally:
        connection.close()
    return Answer(response.status == http.client.OK, text)
