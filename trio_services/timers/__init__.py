"""Time as something to iterate over."""

from ._every import Tick as Tick, every as every
