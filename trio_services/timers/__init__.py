"""Time as something to iterate over."""

from ._cron import Cron as Cron
from ._every import Tick as Tick, every as every
