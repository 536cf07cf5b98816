"""A simulated Open Telekom Cloud over real HTTP: IAM, Auto Scaling's lifecycle hooks, faults, a log of requests.

It is a reading of the API reference of its own and shares no code with the operator.
"""

from .process import Simulator, run_simulator
from .requestlog import LoggedRequest

__all__ = ["LoggedRequest", "Simulator", "run_simulator"]
