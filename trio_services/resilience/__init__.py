"""Policies for work that may fail or take too long: frozen values, and what applies them."""

from ._backoff import Backoff as Backoff
from ._limits import timeout as timeout
from ._retry import Retry as Retry, Transient as Transient
