"""Fixtures for every test."""

import functools
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.controlplane import BinariesNotFoundError, ControlPlane, find_or_make_binaries
from tests.support.gotools import find_or_make_tool
from tests.support.harness import OperatorProcess, install, log_tail
from tests.support.simulator import Simulator, run_simulator
from tests.support.workspace import Workspace

#: Short enough not to wait for, long enough to tell a slow retry from a fast one. No call fails for being slow.
TIMING = {
    "backoff_min_seconds": 0.2,
    "backoff_max_seconds": 1,
    "slow_retry_min_seconds": 2,
    "slow_retry_max_seconds": 4,
    "cloud_timeout_seconds": 30,
}

# A busy machine is no failure. What Hypothesis does otherwise where CI is set stays.
settings.register_profile("suite", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def write_line(config: pytest.Config, line: str) -> None:
    """Show a line at once, whatever is captured."""
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        reporter.ensure_newline()
        reporter.write_line(line)
        reporter.flush()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the binaries before the first test: a build must not count against a test's timeout.

    One of several processes could not say what it does: `make test` makes the binaries before it starts them.
    """
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    say = functools.partial(write_line, session.config)
    try:
        if used & {"control_plane", "scene"}:
            find_or_make_binaries(say)
        for name in sorted(used & {"actionlint", "helm", "prometheus", "promtool"}):
            find_or_make_tool(name, say)
    except BinariesNotFoundError as error:
        pytest.exit(str(error), returncode=1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the operators of the test's control planes have logged meanwhile."""
    report = yield
    if report.failed:
        planes = {each for each in item.funcargs.values() if isinstance(each, ControlPlane)}
        for log in sorted(log for plane in planes for log in plane.work_dir.glob("operator-*.log")):
            if log.stat().st_mtime >= call.start:
                report.sections.append((f"Operator log {log.name}", log_tail(log)))
    return report


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """One control plane for the session; tests keep apart by namespace."""
    write_line(pytestconfig, "Starting etcd and kube-apiserver on loopback for this session")
    with ControlPlane(say=lambda line: write_line(pytestconfig, line)) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with deploy/ applied."""
    install(control_plane)
    return control_plane


@pytest.fixture
def own_cluster() -> Iterator[ControlPlane]:
    """A control plane with deploy/ applied for one test alone, which may crash it or uninstall what others need."""
    with ControlPlane() as own:
        install(own)
        yield own


@pytest.fixture(scope="session")
def cloud(cluster: ControlPlane) -> Iterator[Simulator]:
    """One simulated cloud for the session; tests keep apart by AS group. In the end no log holds a secret of its."""
    with run_simulator() as simulator:
        yield simulator
        for log in cluster.work_dir.glob("*.log"):
            assert simulator.find_secrets(log.read_text(errors="replace")) == [], f"{log.name} holds secrets"


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_or_make_tool("helm")


@pytest.fixture(scope="session")
def actionlint() -> Path:
    return find_or_make_tool("actionlint")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    return find_or_make_tool("prometheus")


@pytest.fixture(scope="session")
def promtool() -> Path:
    return find_or_make_tool("promtool")


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with run_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    """A simulated cloud without a cluster, as good as new."""
    running_simulator.reset()
    return running_simulator


@pytest.fixture(scope="session")
def fast() -> dict[str, float]:
    """Options of an operator that does not keep a test waiting."""
    return TIMING


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator) -> Iterator[OperatorProcess]:
    """One operator for the module, for all namespaces, with credentials of its own. No round falls into a test."""
    never = {"resync_interval_seconds": 864_000, "suspension_interval_seconds": 864_000}
    with OperatorProcess(cluster, cloud.credentials_env(), **never, **TIMING) as process:
        yield process


@pytest.fixture
def workspace(cluster: ControlPlane, cloud: Simulator) -> Iterator[Workspace]:
    """A namespace and an AS group of the test's own."""
    with Workspace(cluster, cloud) as own:
        yield own
