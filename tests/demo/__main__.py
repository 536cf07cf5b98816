"""Show the operator in action on this machine: a real API server, a simulated cloud, the sample hooks."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any, NoReturn

import yaml

from tests.support.controlplane import BinariesNotFoundError, ControlPlaneError
from tests.support.harness import DEPLOY, OPERATOR, RESPONSE_FIELDS, eventually

from .scene import ABSENT_TOPIC_URN, FAILURES, GROUP_ID, SAMPLES, Scene, UnexpectedError, set_scene

NAMESPACE = "web"
READY, DEFAULTED, REFUSED, FAILED = "on-launch", "drain-before-terminate", "broken-rules", "no-such-topic"
BROKEN_RULES = ("lifecycleHookName", "defaultTimeout", "notificationTopicUrn", "notificationMetadata")
READY_SECONDS = 60
POLL_SECONDS = 0.5
STARTED = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument(
        "--once",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="end by itself, with exit code 0 only if everything was as it should be (the default where CI=true)",
    )
    once = parser.parse_args().once
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with set_scene(say) as scene:
            refusal = play(scene)
            show(scene, refusal)
            say("Everything works as expected")
            if not once:
                stay(scene)
    except (BinariesNotFoundError, ControlPlaneError, *FAILURES) as error:
        sys.exit("\n".join(["", str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        sys.exit(130 if once else 0)
    finally:
        say("Stopped")


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Shut down cleanly, whatever signals still arrive; each step has its own time limit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Not by print, which the signal may have interrupted.
    os.write(sys.stdout.fileno(), b"\n==> Stopping\n")
    raise KeyboardInterrupt


def say(line: str) -> None:
    print(f"\n==> {line} ({time.monotonic() - STARTED:.1f} s)", flush=True)


def expect(fact: object, what: str) -> None:
    if not fact:
        raise UnexpectedError(f"Expected, but not found: {what}.")


# --- the play -----------------------------------------------------------------------------------------------------


def play(scene: Scene) -> subprocess.CompletedProcess[str]:
    """Apply all samples and wait for the result of each; return what the API server rejected."""
    say("Applying the samples")
    kubectl = scene.control_plane.kubectl
    in_web, timeout = ("--namespace", NAMESPACE), f"--timeout={READY_SECONDS}s"
    print(kubectl("apply", "-k", SAMPLES).stdout, end="")
    run(scene, "wait", "--for=condition=Ready", "lifecyclehooks", "--all", *in_web, timeout)
    say("Both valid hooks are Ready")
    refused = kubectl("apply", "-f", SAMPLES / "refused-by-kubernetes.yaml", check=False)
    print(kubectl("apply", "-f", SAMPLES / "refused-by-as.yaml").stdout, end="")
    run(scene, "wait", "--for=jsonpath={.status.error.code}=AS.7043", f"lifecyclehook/{FAILED}", *in_web, timeout)
    eventually("an Event for each hook", lambda: {READY, DEFAULTED, FAILED} <= objects_of_events(scene))
    return refused


def show(scene: Scene, refused: subprocess.CompletedProcess[str]) -> None:
    """Show what a cluster admin sees, each view checked."""
    say("The hooks of the cluster")
    run(scene, "get", "lifecyclehooks", "--all-namespaces")

    say("A Ready hook, with everything that AS returned")
    run(scene, "get", "lifecyclehook", READY, "--namespace", NAMESPACE, "--output", "yaml")
    check_ready(scene)

    say("A manifest that the API server rejected")
    print(f"$ kubectl apply -f {(SAMPLES / 'refused-by-kubernetes.yaml').relative_to(DEPLOY.parent)}")
    print(refused.stderr, end="")
    check_refused(scene, refused)

    say("A hook that AS rejected")
    run(scene, "describe", "lifecyclehook", FAILED, "--namespace", NAMESPACE)
    check_failed(scene)

    call_back(scene)

    say("The Events")
    run(scene, "get", "events", "--namespace", NAMESPACE, "--sort-by=.metadata.creationTimestamp")
    check_cluster(scene)


def call_back(scene: Scene) -> None:
    """Have AS suspend an instance, and let it go from the cluster."""
    say("A hook that shows which instances it suspends")
    in_web, timeout = ("--namespace", NAMESPACE), f"--timeout={READY_SECONDS}s"
    hook, watch = f"lifecyclehook/{DEFAULTED}", '{"spec": {"suspensionPolicy": "Watch"}}'
    sample = SAMPLES / "callbacks" / "continue.yaml"
    scene.cloud.add_hanging_instance(GROUP_ID, DEFAULTED, yaml.safe_load(sample.read_text())["spec"]["instanceId"])
    run(scene, "patch", hook, *in_web, "--type=merge", "--patch", watch)
    run(scene, "wait", "--for=jsonpath={.status.suspendedInstances.count}=1", hook, *in_web, timeout)
    run(scene, "get", hook, *in_web, "--output", "jsonpath={.status.suspendedInstances}{'\\n'}")

    say("A callback that lets the instance go on")
    print(f"$ kubectl create -f {sample.relative_to(DEPLOY.parent)}")
    created = scene.control_plane.kubectl("create", "-f", sample, "-o", "name").stdout.strip()
    run(scene, "wait", "--for=condition=Complete", created, *in_web, timeout)
    run(scene, "get", "lifecyclecallbacks", *in_web)
    (suspension,) = scene.cloud.hanging_instances(GROUP_ID)
    expect(suspension["lifecycle_hook_status"] == "CONTINUE", "AS has let the instance go on")


def run(scene: Scene, *args: str) -> None:
    print("$ kubectl", *args)
    print(scene.control_plane.kubectl(*args).stdout, end="", flush=True)


def stay(scene: Scene) -> None:
    say("Everything keeps running until Ctrl-C; continue in another terminal")
    control_plane, topics = scene.control_plane, f"{scene.cloud.url}/_sim/topics"
    lines = [
        f"export KUBECONFIG={control_plane.kubeconfig}",
        f"export PATH={control_plane.binaries.folder}:$PATH",
        "",
        "kubectl explain lifecyclehook.spec",
        "kubectl get lifecyclehooks -A --watch",
        f"tail -f {scene.operator.log}",
        "",
        f"# {FAILED} recovers within a minute after this topic has been created:",
        f"curl --json '{json.dumps({'urn': ABSENT_TOPIC_URN})}' {topics}",
    ]
    print("\n".join(lines), flush=True)
    while scene.operator.is_running:
        time.sleep(POLL_SECONDS)
    raise UnexpectedError("The operator has exited.")


# --- what is seen, and what should be -----------------------------------------------------------------------------


def status(scene: Scene, name: str) -> dict[str, Any]:
    shown = scene.control_plane.kubectl("get", "lifecyclehook", name, "--namespace", NAMESPACE, "--output", "json")
    found: dict[str, Any] = json.loads(shown.stdout).get("status", {})
    return found


def ready(scene: Scene, name: str) -> dict[str, Any]:
    """The condition of that type, empty as long as there is none."""
    return next((each for each in status(scene, name).get("conditions", []) if each["type"] == "Ready"), {})


def objects_of_events(scene: Scene) -> set[str]:
    shown = scene.control_plane.kubectl("get", "events", "--namespace", NAMESPACE, "--output", "json")
    return {event["involvedObject"]["name"] for event in json.loads(shown.stdout)["items"]}


def check_ready(scene: Scene) -> None:
    answered = {name: status(scene, name).get("lifecycleHook", {}) for name in (READY, DEFAULTED)}
    for name, hook in answered.items():
        missing = RESPONSE_FIELDS - hook.keys()
        expect(not missing, f"{name} has all eight fields in its status, {', '.join(sorted(missing))} too")
    expect(answered[READY]["lifecycleHookName"] == "test-hook1", f"{READY} has the name that its spec gives it")
    expect(answered[DEFAULTED]["lifecycleHookName"] == DEFAULTED, f"{DEFAULTED} is named after its resource")
    expect(answered[DEFAULTED]["defaultTimeout"] == 3600, f"{DEFAULTED} has the default timeout")
    expect(answered[DEFAULTED]["notificationMetadata"], f"{DEFAULTED} has its metadata")
    in_cloud = {hook["lifecycle_hook_name"] for hook in scene.cloud.hooks(GROUP_ID)}
    expect(in_cloud == {"test-hook1", DEFAULTED}, f"the group has the two good hooks and no other: {in_cloud}")


def check_refused(scene: Scene, refused: subprocess.CompletedProcess[str]) -> None:
    expect(refused.returncode != 0, f"the API server refuses {REFUSED}")
    unnamed = [field for field in BROKEN_RULES if f"spec.{field}: " not in refused.stderr]
    expect(not unnamed, f"the refusal names every broken rule, {', '.join(unnamed)} too")
    stored = scene.control_plane.kubectl("get", "lifecyclehook", REFUSED, "--namespace", NAMESPACE, check=False)
    expect("NotFound" in stored.stderr, f"{REFUSED} is not stored")


def check_failed(scene: Scene) -> None:
    error = status(scene, FAILED).get("error", {})
    expect((error.get("code"), error.get("httpStatus")) == ("AS.7043", 400), f"{FAILED} has AS.7043 in its status")
    condition = ready(scene, FAILED)
    expect(
        (condition.get("status"), condition.get("reason")) == ("False", "TopicNotFound"), f"{FAILED} says TopicNotFound"
    )


def check_cluster(scene: Scene) -> None:
    user = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
    events = scene.control_plane.audit_events(user=user)
    forbidden = {event["requestURI"] for event in events if event["responseStatus"]["code"] == 403}
    expect(not forbidden, f"the operator's rights suffice for {', '.join(sorted(forbidden))}")
    expect(scene.operator.is_running, "the operator still runs")


if __name__ == "__main__":
    main()
