"""Which versions are at work."""

import platform
from importlib.metadata import version

DISTRIBUTION = "lifecyclehook-operator"


def describe_versions() -> str:
    """Return the operator's name and version, and in brackets those of what it runs on."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("kopf", "kubernetes"))
    return f"{DISTRIBUTION} {version(DISTRIBUTION)} (Python {platform.python_version()}, {libraries})"
