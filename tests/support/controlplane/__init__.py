"""A Kubernetes control plane for tests: etcd and kube-apiserver as processes on loopback, and kubectl beside them."""

from .binaries import Binaries, BinariesNotFoundError, find_or_make_binaries
from .process import ControlPlane, ControlPlaneError, free_ports, start_process, stop_process

__all__ = [
    "Binaries",
    "BinariesNotFoundError",
    "ControlPlane",
    "ControlPlaneError",
    "find_or_make_binaries",
    "free_ports",
    "start_process",
    "stop_process",
]
