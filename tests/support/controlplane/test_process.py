"""The control plane itself, started and stopped for real."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.controlplane import Binaries, ControlPlane, ControlPlaneError, find_or_make_binaries
from tests.support.controlplane import process as process_module


def say_nothing(_: str) -> None: ...


@pytest.fixture(scope="module")
def own_control_plane(control_plane: ControlPlane) -> ControlPlane:
    """One that a test may stop; the session's is only asked for its binaries."""
    return ControlPlane(control_plane.binaries, say=say_nothing)


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_starts_ready_and_leaves_nothing_running(own_control_plane: ControlPlane) -> None:
    with own_control_plane as running:
        token = running.kubeconfig.read_text().split("token: ")[1].strip()
        verify = ssl.create_default_context(cafile=running.ca_file)
        # Python 3.13 asks for this by default.
        verify.verify_flags |= ssl.VERIFY_X509_STRICT
        with httpx.Client(verify=verify, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as client:
            assert client.get(f"{running.url}/readyz").text == "ok"
        assert "Server Version: v" in running.kubectl("version").stdout
        pids = list(running.pids.values())
        assert [is_running(pid) for pid in pids] == [True, True]
        work_dir = running.work_dir
    assert [is_running(pid) for pid in pids] == [False, False]
    assert not work_dir.exists()


def test_a_service_account_has_its_own_kubeconfig_and_rbac_is_on(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "rbac")
    control_plane.kubectl("create", "serviceaccount", "nobody", "--namespace", "rbac")
    since = datetime.now(UTC)
    kubeconfig = control_plane.service_account_kubeconfig("rbac", "nobody")
    assert kubeconfig.stat().st_mode & 0o077 == 0
    user = "system:serviceaccount:rbac:nobody"
    refused = control_plane.kubectl("get", "secrets", kubeconfig=kubeconfig, check=False)
    assert f'User "{user}" cannot list resource "secrets"' in refused.stderr

    def is_audited() -> bool:
        events = control_plane.audit_events(since=since, user=user, resource="secrets", namespace="rbac")
        return [(event["verb"], event["responseStatus"]["code"]) for event in events] == [("list", 403)]

    wait_for(is_audited)


def test_the_audit_log_counts_writes(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "audit")
    since = datetime.now(UTC)
    control_plane.kubectl("create", "configmap", "one", "--namespace", "audit")
    control_plane.kubectl("label", "configmap", "one", "a=b", "--namespace", "audit")
    events = control_plane.audit_events(
        since=since, resource="configmaps", namespace="audit", verbs={"create", "update", "patch", "delete"}
    )
    assert [event["verb"] for event in events] == ["create", "patch"]
    assert control_plane.audit_events(since=datetime.now(UTC), namespace="audit") == []


def test_a_write_that_can_be_seen_is_in_the_audit_log(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "seen")
    control_plane.kubectl("create", "configmap", "one", "--namespace", "seen")
    context = ssl.create_default_context(cafile=control_plane.ca_file)
    token = yaml.safe_load(control_plane.kubeconfig.read_text())["users"][0]["user"]["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    url = f"{control_plane.url}/api/v1/namespaces/seen/configmaps/one"
    watch = {"watch": "true", "fieldSelector": "metadata.name=one"}
    with (
        httpx.Client(verify=context, trust_env=False, headers=headers, timeout=10) as client,
        client.stream("GET", url.rpartition("/")[0], params=watch) as stream,
        ThreadPoolExecutor(max_workers=1) as executor,
    ):
        seen = stream.iter_lines()
        next(seen)
        for number in range(1, 101):
            patch = executor.submit(client.patch, url, json={"data": {"number": str(number)}})
            assert f'"number":"{number}"' in next(seen)
            events = control_plane.audit_events(namespace="seen", name="one", verbs={"patch"})
            assert len(events) == number
            assert patch.result().is_success


def test_kubectl_that_fails_shows_why(control_plane: ControlPlane) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        control_plane.kubectl("get", "configmap", "absent")
    assert failed.value.__notes__ == ['Error from server (NotFound): configmaps "absent" not found\n']


def test_etcd_comes_back_with_what_it_held(own_control_plane: ControlPlane) -> None:
    with own_control_plane as running:
        running.kubectl("create", "configmap", "kept")
        running.stop_etcd()
        assert running.kubectl("create", "configmap", "lost", "--request-timeout=1s", check=False).returncode != 0
        running.start_etcd()
        assert running.kubectl("get", "configmap", "kept", "-o", "name").stdout == "configmap/kept\n"


def test_a_port_that_was_taken_meanwhile_is_no_failure(
    own_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        choose = process_module.free_ports
        choices = [lambda count: [*choose(count - 1), taken], choose]

        def choose_next(count: int) -> list[int]:
            return choices.pop(0)(count)

        monkeypatch.setattr(process_module, "free_ports", choose_next)
        with own_control_plane as running:
            assert running.url != f"https://127.0.0.1:{taken}"


def test_a_failed_start_shows_the_log_and_leaves_nothing(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    for name in ("kube-apiserver", "kubectl", "etcd"):
        (tmp_path / name).symlink_to(control_plane.binaries.folder / name)
    (tmp_path / "kube-apiserver").unlink()
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\necho out of order\nexit 7\n")
    (tmp_path / "kube-apiserver").chmod(0o755)
    expected = r"(?s)kube-apiserver ended with exit code 7\. The end of its log:\nout of order"
    with pytest.raises(ControlPlaneError, match=expected):
        ControlPlane(Binaries(tmp_path)).start()
    assert list((tmp_path / "temp").iterdir()) == []


@pytest.mark.parametrize(
    "end",
    [
        signal.SIGINT,
        signal.SIGTERM,
        pytest.param(signal.SIGKILL, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")),
    ],
)
def test_the_command_takes_its_processes_with_it(
    control_plane: ControlPlane, tmp_path: Path, end: signal.Signals
) -> None:
    command = [sys.executable, "-m", "tests.support.controlplane", "run"]
    environment = os.environ | {
        "KUBEBUILDER_ASSETS": str(find_or_make_binaries(say_nothing).folder),
        "TMPDIR": str(tmp_path),
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        kubeconfig = Path(process.stdout.readline().strip().removeprefix("export KUBECONFIG="))
        while not process.stdout.readline().startswith("Running"):
            pass
        port = int(kubeconfig.read_text().split("server: https://127.0.0.1:")[1].split()[0])
        process.send_signal(end)
        process.wait(30)

    def is_free() -> bool:
        with socket.socket() as each:
            return each.connect_ex(("127.0.0.1", port)) != 0

    wait_for(is_free)
    if end != signal.SIGKILL:
        assert process.returncode == 0
        assert list(tmp_path.iterdir()) == []
