"""Supervision: trees of services that are started, restarted and stopped."""

from ._change import Change as Change
from ._child import Child as Child, Restart as Restart
from ._injection import check_injection as check_injection
from ._plan import Strategy as Strategy, check_budget as check_budget
from ._restarts import Limit as Limit
from ._statistics import ServiceStatistics as ServiceStatistics
from ._supervisor import Supervisor as Supervisor
from ._tree import STOP_WITHIN as STOP_WITHIN, Tree as Tree, open_supervisor as open_supervisor
