"""The verdict of `make e2e`, and which cluster it may be played on."""

import subprocess
import sys
from pathlib import Path

import pytest

from .cluster import UnsafeContextError, check_context
from .report import Report


def make_report(*times: float) -> Report:
    readings = iter(times)
    return Report(lambda _line: None, clock=lambda: next(readings))


@pytest.mark.parametrize("context", ["kind-kind", "kind-e2e", "k3d-dev", "minikube"])
def test_a_cluster_to_be_thrown_away_is_taken(context: str) -> None:
    check_context(context)


@pytest.mark.parametrize("context", ["prod", "", "minikube-prod", "my-kind-cluster", "KIND-x", "admin@kind-x"])
def test_any_other_has_to_be_confirmed_by_its_name(context: str) -> None:
    with pytest.raises(UnsafeContextError, match=r"CONTEXT="):
        check_context(context)
    check_context(context, confirmed=context)


@pytest.mark.parametrize("context", ["prod", "kind-kind"])
def test_what_was_confirmed_has_to_be_the_current_one(context: str) -> None:
    with pytest.raises(UnsafeContextError, match="not 'staging'"):
        check_context(context, confirmed="staging")


def test_the_command_refuses_before_it_touches_anything(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho prod\n')
    kubectl.chmod(0o755)
    command = [sys.executable, "-m", "tests.e2e", "--image=operator:1"]
    ran = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "CONTEXT=prod" in ran.stderr
    assert (tmp_path / "calls").read_text() == "config current-context\n"


def test_a_step_takes_as_long_as_its_block() -> None:
    report = make_report(10, 12.5)
    with report.step("install"):
        pass
    assert report.steps[0].seconds == 2.5
    assert report.is_kept
    assert report.table().splitlines()[1].split() == ["install", "2.5", "-", "ok"]


def test_what_a_step_measures_itself_counts() -> None:
    report = make_report(0, 60)
    with report.step("handover", bound_seconds=5) as step:
        step.seconds = 4.9
    assert report.is_kept
    assert report.table().splitlines()[1].split() == ["handover", "4.9", "<", "5", "ok"]


@pytest.mark.parametrize("seconds", [5.0, 5.1])
def test_a_bound_that_is_not_kept_is_a_broken_promise(seconds: float) -> None:
    report = make_report(0, 0)
    with report.step("handover", bound_seconds=5) as step:
        step.seconds = seconds
    assert not report.is_kept
    assert "BROKEN" in report.table().splitlines()[1]
    assert f"Broken, handover: under 5 s, and it took {seconds:.1f} s" in report.table()


def test_one_broken_promise_breaks_the_verdict() -> None:
    report = make_report(0, 1, 1, 2)
    with report.step("uninstall") as step:
        step.expect(fact=[], promise="nothing is left")
    with report.step("metrics") as step:
        step.expect(fact="found", promise="they are served")
    assert not report.is_kept
    assert [step.broken for step in report.steps] == [["nothing is left"], []]


def test_a_step_that_fails_is_broken_and_the_next_is_tried() -> None:
    report = make_report(0, 1, 2)
    with report.step("edit"):
        raise TimeoutError("waited in vain")
    with report.step("drift"):
        pass
    assert [(step.seconds, step.broken) for step in report.steps] == [(None, ["waited in vain"]), (1, [])]
    assert not report.is_kept


def test_a_step_that_is_interrupted_is_not_kept() -> None:
    report = make_report(0)
    with pytest.raises(KeyboardInterrupt), report.step("edit"):
        raise KeyboardInterrupt
    assert not report.is_kept


def test_nothing_measured_is_no_success() -> None:
    assert not make_report().is_kept


def test_a_mistake_of_the_play_itself_is_not_taken_for_one_of_the_product() -> None:
    with pytest.raises(KeyError), make_report(0).step("edit"):
        raise KeyError("spec")
