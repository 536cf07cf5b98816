"""What a cluster admin does with the product, step by step, and what docs/operations.md promises of each."""

import itertools
import json
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.harness import CRD, DEPLOY, OPERATOR, RESPONSE_FIELDS, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import API_VERSION, ready

from .report import Report, Step
from .stage import GROUP_ID, LABEL, ONE, RESYNC_SECONDS, TOPIC_URN, WAIT_SECONDS, WEB, Stage

SAMPLES = DEPLOY / "samples"
#: docs/operations.md: how soon another replica takes over when the leader shuts down cleanly, and when it crashes.
HANDOVER_SECONDS, TAKEOVER_SECONDS = 5, 20
#: docs/user-guide.md says "at once", in contrast to the slow retry, which comes after 30 s.
AT_ONCE_SECONDS = 10
#: On a Secret that hooks need.
IN_USE = "as.otc.t-systems.com/in-use"
_ROLLOUT_STATUS = (
    *("rollout", "status", f"deployment/{OPERATOR}"),
    *("--namespace", OPERATOR, f"--timeout={WAIT_SECONDS}s"),
)
WRITING = ("create", "modify", "delete")


class Play:
    """The steps, in their order. Each is measured from its beginning until a hook that is applied then is Ready."""

    def __init__(self, stage: Stage, cloud: Simulator, report: Report, old_image: str | None) -> None:
        self._stage = stage
        self._cluster = stage.cluster
        self._cloud = cloud
        self._report = report
        self._old_image = old_image
        self._numbers = itertools.count(1)
        #: How often the container of a pod may have ended, by the pod's UID: as often as it was made to.
        self._ended: Counter[str] = Counter()

    def run(self) -> None:
        """Play everything; what is not as promised stands in the report."""
        self.install()
        if not self._report.is_kept:
            return  # there is nothing to try the rest on
        self.look_at_the_pod()
        self.apply_samples()
        self.edit()
        self.drift()
        self.bring_a_secret()
        if self._old_image:
            self.upgrade()
        self.restart()
        self.fail_to_start()
        self.fail_over()
        self.read_metrics()
        self.uninstall()
        self.serve_one_namespace()

    # --- the whole cluster ----------------------------------------------------------------------------------------

    def install(self) -> None:
        with self._report.step("install: apply until the first hook is Ready"):
            self._apply_overlay("base", self._old_image)
            self._seconds_until_ready()

    def look_at_the_pod(self) -> None:
        with self._report.step("the pod: restricted, read-only root") as step:
            namespace = self._cluster.find("namespace", OPERATOR)["metadata"]["labels"]
            step.expect(
                namespace.get("pod-security.kubernetes.io/enforce") == "restricted",
                "the pod meets the Pod Security Standard restricted",
            )
            script = (
                "import os, sys\ntry: open('/tmp/x', 'w')\nexcept OSError as error: print(os.getuid(), error.errno)"
            )
            (pod,) = self._stage.pods()
            answer = self._cluster.kubectl(
                "exec", "--namespace", OPERATOR, pod["metadata"]["name"], "--", "python", "-c", script
            )
            step.expect(answer.split() == ["65532", "30"], f"user 65532, and a read-only root: {answer.strip()}")
            self._check_restarts(step)

    def apply_samples(self) -> None:
        with self._report.step("samples: apply until both are Ready") as step:
            began = time.monotonic()
            for name in ("on-launch", "drain-before-terminate"):
                self._cluster.apply(self._sample(name))
            self._wait_ready("on-launch")
            self._wait_ready("drain-before-terminate")
            step.seconds = time.monotonic() - began
            for name in ("on-launch", "drain-before-terminate"):
                shown = self._hook(name)["status"].get("lifecycleHook", {})
                step.expect(shown.keys() >= RESPONSE_FIELDS, f"the status of {name} has all eight fields of AS")
            in_cloud = {hook["lifecycle_hook_name"] for hook in self._cloud.hooks(GROUP_ID)}
            step.expect(in_cloud == {"test-hook1", "drain-before-terminate"}, f"AS has both hooks, not {in_cloud}")
        with self._report.step("samples: what is refused says why") as step:
            try:
                self._cluster.apply(self._sample("refused-by-kubernetes"))
            except subprocess.CalledProcessError as error:
                step.expect("spec.defaultTimeout: Invalid value" in error.stderr, "the refusal names the broken rules")
            else:
                step.expect(fact=False, promise="the API server refuses what breaks a rule")
            self._cluster.apply(self._sample("refused-by-as"))
            self._wait_for("no-such-topic", "jsonpath={.status.error.code}=AS.7043")
            step.expect(ready(self._hook("no-such-topic")).get("reason") == "TopicNotFound", "the reason TopicNotFound")
            self._cluster.kubectl("delete", "lifecyclehook", "no-such-topic", "--namespace", WEB, "--timeout=60s")

    def edit(self) -> None:
        with self._report.step("edit: patch until it is in AS and status") as step:
            self._patch("on-launch", {"spec": {"defaultTimeout": 600}})
            self._wait_for("on-launch", "jsonpath={.status.lifecycleHook.defaultTimeout}=600")
            timeouts = [hook["default_timeout"] for hook in self._cloud.hooks(GROUP_ID)]
            step.expect(600 in timeouts, f"AS has the new timeout: {timeouts}")

    def drift(self) -> None:
        name = f"drift: corrected within the interval of {RESYNC_SECONDS} s"
        with self._report.step(name, RESYNC_SECONDS + AT_ONCE_SECONDS):
            self._cloud.update_hook(GROUP_ID, "test-hook1", default_timeout=1234)
            self._cloud.delete_hook(GROUP_ID, "drain-before-terminate")

            def check() -> bool:
                found = {hook["lifecycle_hook_name"]: hook["default_timeout"] for hook in self._cloud.hooks(GROUP_ID)}
                return found == {"test-hook1": 600, "drain-before-terminate": 3600}

            eventually("both hooks are in AS again as they were", check, WAIT_SECONDS)

    def bring_a_secret(self) -> None:
        with self._report.step("Secret: create until its hook is Ready", AT_ONCE_SECONDS) as step:
            name = self._create_hook(credentialsRef={"secretName": "otc"})
            self._wait_for(name, 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=CredentialsNotFound')
            began = time.monotonic()
            content = {"clouds.yaml": self._stage.clouds_yaml(), "cacert": self._stage.ca}
            metadata = {"name": "otc", "namespace": WEB}
            self._cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content})
            self._wait_ready(name)
            step.seconds = time.monotonic() - began

    def upgrade(self) -> None:
        with self._report.step("upgrade: apply until a new hook is Ready") as step:
            before, seen = self._versions(), self._last_request()
            began = time.monotonic()
            self._apply_overlay("base")
            name = self._create_hook()
            self._wait_ready(name)
            step.seconds = time.monotonic() - began
            self._wait_for_rollout()
            after = self._versions()
            changed = [hook for hook in before if before[hook] != after.get(hook)]
            step.expect(not changed, f"hooks and their status stay as they are: {', '.join(changed)}")
            calls = [each for each in self._cloud.requests(after=seen) if each.operation in WRITING]
            others = [f"{each.operation} {each.hook_name}" for each in calls if each.hook_name != name]
            step.expect(not others, f"AS is not called to change what matches the spec: {', '.join(others)}")
            self._check_restarts(step)

    def restart(self) -> None:
        self._interrupt("delete pod: until a new hook is Ready", self._delete_pod)
        self._interrupt("kill -9: until a new hook is Ready", self._kill)
        self._interrupt("rollout restart: until a new hook is Ready", self._restart_rollout)
        liveness = self._operator()["livenessProbe"]
        pod_grace = self._deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        probing = liveness["periodSeconds"] * (liveness["failureThreshold"] + 1) + liveness["timeoutSeconds"]
        grace = liveness.get("terminationGracePeriodSeconds", pod_grace)
        self._interrupt("hung process: until a new hook is Ready", self._hang, probing + grace + AT_ONCE_SECONDS)

    def fail_to_start(self) -> None:
        """A wrong option ends the process: why stands in the termination message, where `kubectl describe` shows it."""
        with self._report.step("failing start: until the reason is in the termination message") as step:
            variable = "LIFECYCLEHOOK_OPERATOR_RESYNC_INTERVAL_SECONDS"
            before = [pod["metadata"]["uid"] for pod in self._stage.pods()]
            began = time.monotonic()
            self._set_environment(variable, "0")

            def check() -> str | None:
                for pod in self._stage.pods():
                    if pod["metadata"]["uid"] in before:
                        continue
                    for status in pod["status"].get("containerStatuses", []):
                        for state in (status["state"], status["lastState"]):
                            if "terminated" in state:
                                return str(state["terminated"].get("message", "")) or "none"
                return None

            try:
                message = eventually("the process has ended", check, WAIT_SECONDS)
                step.seconds = time.monotonic() - began
                step.expect("resync" in message, f"the termination message says why: {message}")
                step.expect("Traceback" not in message, f"it is readable: {message}")
            finally:
                self._set_environment(variable, str(RESYNC_SECONDS))
                self._wait_for_rollout()

    def fail_over(self) -> None:
        with self._report.step("high availability: apply until both replicas are Ready") as step:
            folder = self._stage.overlay("overlays/high-availability")
            self._stage.add_metrics(folder)
            # The pod of base does not ask for the Lease: it may not run beside the others.
            self._cluster.kubectl("scale", f"deployment/{OPERATOR}", "--namespace", OPERATOR, "--replicas=0")
            pods = ("pod", "--selector", f"app.kubernetes.io/name={OPERATOR}", "--namespace", OPERATOR)
            self._cluster.kubectl("wait", "--for=delete", *pods, f"--timeout={WAIT_SECONDS}s")
            self._cluster.kubectl("apply", "--kustomize", folder)
            self._wait_for_rollout()
            self._stage.wait_for_leader()
            step.expect(len(self._stage.pods()) == 2, "there are two pods")
        for number in (1, 2):
            name = f"planned handover {number} (delete pod): until a new hook is Ready"
            self._interrupt(name, self._delete_pod, HANDOVER_SECONDS)
        with self._report.step(
            "planned handover (rollout restart): longest wait of a new hook", HANDOVER_SECONDS
        ) as step:
            self._stage.wait_for_leader()
            self._restart_rollout()
            waits = [0.0]
            with self._cluster.start(*_ROLLOUT_STATUS) as rollout:
                while rollout.poll() is None:
                    waits.append(self._seconds_until_ready())
            waits.append(self._seconds_until_ready())
            step.seconds = max(waits)
            self._check_restarts(step)
        for number in (1, 2):
            name = f"crash takeover {number} (kill -9): until a new hook is Ready"
            self._interrupt(name, self._kill, TAKEOVER_SECONDS)

    def read_metrics(self) -> None:
        with self._report.step("metrics: of both replicas, and by the Service") as step:
            leader = self._stage.wait_for_leader()["metadata"]["name"]
            leaders, counted = {}, 0.0
            for name in [pod["metadata"]["name"] for pod in self._stage.pods()]:
                scraped = self._scrape(f"pod/{name}")
                leaders[name] = sum(value for labels, value in scraped["lifecyclehook_leader"])
                if name == leader:
                    counted = sum(
                        value for labels, value in scraped["lifecyclehook_resources"] if labels["ready"] == "True"
                    )
            step.expect(
                leaders == {name: name == leader for name in leaders},
                f"lifecyclehook_leader is 1 on {leader}: {leaders}",
            )
            hooks = self._cluster.list("lifecyclehooks", "--all-namespaces")
            step.expect(counted == len(hooks), f"the leader counts {len(hooks)} hooks: {counted}")
            scraped = self._scrape(f"service/{OPERATOR}-metrics")
            step.expect("lifecyclehook_leader" in scraped, "the Service leads there")

    def uninstall(self) -> None:
        with self._report.step("uninstall: delete all hooks") as step:
            kept = self._create_hook(deletionPolicy="Retain")
            self._wait_ready(kept)
            group = self._hook(kept)["spec"]["scalingGroupId"]
            self._check_created_once(step)
            began = time.monotonic()
            groups = {each["spec"]["scalingGroupId"] for each in self._hooks()}
            self._cluster.kubectl("delete", "lifecyclehooks", "--all", "--all-namespaces", "--timeout=120s")
            step.seconds = time.monotonic() - began
            left = {each: [hook["lifecycle_hook_name"] for hook in self._cloud.hooks(each)] for each in groups}
            left = {each: names for each, names in left.items() if names}
            step.expect(left == {group: [kept]}, f"only the hook that is to be retained stays in AS: {left}")
            self._check_secrets()
        with self._report.step("uninstall: delete the operator"):
            overlay = self._stage.overlay("overlays/high-availability")
            self._stage.add_metrics(overlay)
            self._cluster.kubectl("delete", "--kustomize", overlay)
            self._check_nothing_left()

    # --- one namespace --------------------------------------------------------------------------------------------

    def serve_one_namespace(self) -> None:
        shared = (("--kustomize", DEPLOY.parent / "crds"), ("--filename", DEPLOY / "base" / "roles.yaml"))
        with self._report.step("one namespace: apply until a hook there is Ready") as step:
            for parts in shared:
                self._cluster.kubectl("apply", *parts)
                self._cluster.kubectl("label", *parts, f"{LABEL}=true")
            self._cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s")
            folder = self._stage.overlay("overlays/single-namespace", namespace=ONE)
            elsewhere = self._create_hook()
            began = time.monotonic()
            self._cluster.kubectl("apply", "--kustomize", folder)
            self._seconds_until_ready(ONE)
            step.seconds = time.monotonic() - began
            is_served = "conditions" in self._hook(elsewhere).get("status", {})
            step.expect(not is_served, "hooks of other namespaces are not served")
            bindings = self._cluster.list("clusterrolebindings", "--selector", f"app.kubernetes.io/name={OPERATOR}")
            step.expect(not bindings, "it has no right in the whole cluster")
            self._check_restarts(step, ONE)
        if step.broken:
            return
        with self._report.step("one namespace: uninstall"):
            self._cluster.kubectl("delete", "lifecyclehook", elsewhere, "--namespace", WEB, "--timeout=60s")
            self._cluster.kubectl("delete", "lifecyclehooks", "--all", "--namespace", ONE, "--timeout=60s")
            self._cluster.kubectl("delete", "--kustomize", folder)
            self._check_secrets()
            for parts in reversed(shared):
                self._cluster.kubectl("delete", *parts)
            self._check_nothing_left()

    # --- what is done to the operator -----------------------------------------------------------------------------

    def _interrupt(self, name: str, interrupt: Callable[[], None], bound_seconds: float | None = None) -> None:
        """Interrupt the operator, and measure from then until a new hook is Ready; all else stays as it is."""
        with self._report.step(name, bound_seconds) as step:
            self._wait_for_rollout()
            if self._operator_is_elected():
                self._stage.wait_for_leader()
            before = self._versions()
            began = time.monotonic()
            interrupt()
            name = self._create_hook()
            self._wait_ready(name)
            step.seconds = time.monotonic() - began
            self._wait_for_rollout()
            after = self._versions()
            written = [hook for hook in before if before[hook] != after.get(hook)]
            step.expect(not written, f"nothing is written for hooks in sync: {', '.join(written)}")
            self._check_restarts(step)

    def _operator_is_elected(self) -> bool:
        return "--leader-elect" in self._operator()["args"]

    def _victim(self) -> dict[str, Any]:
        if self._operator_is_elected():
            return self._stage.wait_for_leader()
        (pod,) = self._stage.pods()
        return pod

    def _delete_pod(self) -> None:
        name = self._victim()["metadata"]["name"]
        self._cluster.kubectl("delete", "pod", name, "--namespace", OPERATOR, "--wait=false")

    def _restart_rollout(self) -> None:
        self._cluster.kubectl("rollout", "restart", f"deployment/{OPERATOR}", "--namespace", OPERATOR)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        pod = self._victim()
        self._stage.signal(pod, number)
        self._ended[pod["metadata"]["uid"]] += 1

    def _apply_overlay(self, source: str, image: str | None = None) -> None:
        self._cluster.kubectl("apply", "--kustomize", self._stage.overlay(source, image=image))
        self._cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s")

    def _set_environment(self, name: str, value: str) -> None:
        self._cluster.kubectl("set", "env", f"deployment/{OPERATOR}", "--namespace", OPERATOR, f"{name}={value}")

    def _wait_for_rollout(self) -> None:
        self._cluster.kubectl(*_ROLLOUT_STATUS)

    def _deployment(self) -> Any:
        return self._cluster.find("deployment", OPERATOR, "--namespace", OPERATOR)

    def _operator(self) -> Any:
        return self._deployment()["spec"]["template"]["spec"]["containers"][0]

    def _scrape(self, target: str) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return labels and value of each sample that /metrics has, by name."""
        with self._cluster.forward(OPERATOR, target, 9090) as port:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).raise_for_status().text
        samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((sample.labels, sample.value))
        return samples

    # --- hooks ----------------------------------------------------------------------------------------------------

    def _sample(self, name: str) -> dict[str, Any]:
        sample: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
        sample["metadata"]["namespace"] = WEB
        return sample

    def _create_hook(self, namespace: str = WEB, **fields: Any) -> str:
        """Apply a hook in a new AS group, for a group has five at the most, and return its name."""
        name = f"hook-{next(self._numbers)}"
        spec = {
            "scalingGroupId": self._cloud.add_group(),
            "lifecycleHookType": "INSTANCE_LAUNCHING",
            "notificationTopicUrn": TOPIC_URN,
            **fields,
        }
        metadata = {"name": name, "namespace": namespace}
        self._cluster.apply({"apiVersion": API_VERSION, "kind": "LifecycleHook", "metadata": metadata, "spec": spec})
        return name

    def _seconds_until_ready(self, namespace: str = WEB) -> float:
        began = time.monotonic()
        self._wait_ready(self._create_hook(namespace), namespace)
        return time.monotonic() - began

    def _wait_ready(self, name: str, namespace: str = WEB) -> None:
        self._wait_for(name, "condition=Ready", namespace)

    def _wait_for(self, name: str, condition: str, namespace: str = WEB) -> None:
        words = (f"--for={condition}", f"lifecyclehook/{name}", "--namespace", namespace)
        self._cluster.kubectl("wait", *words, f"--timeout={WAIT_SECONDS}s")

    def _patch(self, name: str, patch: Mapping[str, Any]) -> None:
        text = json.dumps(patch)
        self._cluster.kubectl("patch", "lifecyclehook", name, "--namespace", WEB, "--type=merge", "--patch", text)

    def _hook(self, name: str, namespace: str = WEB) -> Any:
        return self._cluster.find("lifecyclehook", name, "--namespace", namespace)

    def _hooks(self) -> list[Any]:
        hooks: list[Any] = self._cluster.list("lifecyclehooks", "--namespace", WEB)
        return hooks

    def _versions(self) -> dict[str, str]:
        """Return the resource version of each hook, which any write changes."""
        return {hook["metadata"]["name"]: hook["metadata"]["resourceVersion"] for hook in self._hooks()}

    def _last_request(self) -> int:
        return max((each.sequence for each in self._cloud.requests()), default=0)

    # --- what holds all the time ----------------------------------------------------------------------------------

    def _check_restarts(self, step: Step, namespace: str = OPERATOR) -> None:
        for pod in self._stage.pods(namespace):
            for status in pod["status"].get("containerStatuses", []):
                unaccounted = status["restartCount"] - self._ended[pod["metadata"]["uid"]]
                last = status["lastState"].get("terminated", {})
                why = f"exit status {last.get('exitCode')}, {last.get('message')}"
                step.expect(unaccounted <= 0, f"{pod['metadata']['name']} does not end by itself, and did: {why}")

    def _check_created_once(self, step: Step) -> None:
        created = [each for each in self._cloud.requests("create") if each.status is not None and each.status < 300]
        twice = {
            each for each, count in Counter((each.group_id, each.hook_name) for each in created).items() if count > 1
        }
        twice.discard((GROUP_ID, "drain-before-terminate"))  # deleted in AS, to be created again
        step.expect(not twice, f"one operator works at a time: created twice are {twice}")

    def _check_secrets(self) -> None:
        """A Secret is released right after the last hook that needs it."""

        def is_free() -> bool:
            return not self._cluster.list("secrets", "--all-namespaces", "--selector", IN_USE)

        eventually("all Secrets are released", is_free, AT_ONCE_SECONDS)

    def _check_nothing_left(self) -> None:
        listable = self._cluster.kubectl("api-resources", "--verbs=list,delete", "--output=name").split()
        selected = ("--all-namespaces", "--selector", f"app.kubernetes.io/name={OPERATOR}")

        def check() -> str:
            return self._cluster.kubectl("get", ",".join(listable), *selected, "--output=name", "--ignore-not-found")

        try:
            eventually("nothing of it stays in the cluster", lambda: not check(), WAIT_SECONDS)
        except TimeoutError as error:
            error.add_note(check())
            raise
