"""Time as something to iterate over."""

from ._at import at as at, wall_clock as wall_clock
from ._cron import Cron as Cron
from ._every import every as every
from ._tick import Missed as Missed, Tick as Tick
