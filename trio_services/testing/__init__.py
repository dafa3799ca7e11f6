"""Testing: whole applications under test, in real time or in virtual time."""

from ._errors import (
    Deadlock as Deadlock,
    InjectedFault as InjectedFault,
    LeftBehind as LeftBehind,
    NotSeen as NotSeen,
    RealTimeUsed as RealTimeUsed,
)
from ._faults import Faults as Faults
from ._harness import TestHost as TestHost, host as host
from ._overrides import Overrides as Overrides
from ._scripted import Act as Act, Scripted as Scripted
from ._wall import Wall as Wall
