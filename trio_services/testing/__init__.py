"""Testing: whole applications under test, in real time or in virtual time."""

from ._errors import (
    Deadlock as Deadlock,
    LeftBehind as LeftBehind,
    NotSeen as NotSeen,
    RealTimeUsed as RealTimeUsed,
)
from ._harness import TestHost as TestHost, host as host
from ._overrides import Overrides as Overrides
from ._wall import Wall as Wall
