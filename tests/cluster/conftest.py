"""What several tests here do to the cluster."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import yaml

from tests.support.harness import eventually
from tests.support.workspace import Workspace

_GROUP = "admissionregistration.k8s.io"
_MESSAGE = "nothing is changed here"


@pytest.fixture
def refuse_changes(workspace: Workspace) -> Iterator[Callable[[str, str, list[str]], Callable[[], None]]]:
    """A call that has the API server refuse changes of a resource in the namespace, and returns what ends that.

    It takes API group and plural (with the subresource), and a kubectl command that changes such an object, to find out
    when the refusal has come into force.
    """
    api_version = f"{_GROUP}/{'v1' if workspace.cluster.binaries.kubernetes >= (1, 30) else 'v1beta1'}"
    with ExitStack() as stack:

        def refuse(group: str, resource: str, command: list[str]) -> Callable[[], None]:
            version = "v1" if not group else "*"
            rule = {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": ["UPDATE"]}
            scope = {"matchLabels": {"kubernetes.io/metadata.name": workspace.namespace}}
            name = f"refuse-{resource.replace('/', '-')}-{workspace.namespace}"
            policy = {
                "apiVersion": api_version,
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"namespaceSelector": scope, "resourceRules": [rule]},
                    "validations": [{"expression": "false", "message": _MESSAGE}],
                },
            }
            binding = {
                "apiVersion": api_version,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }
            text = yaml.safe_dump_all([policy, binding])

            def run(*words: str) -> str:
                return workspace.cluster.kubectl(*words, input=text, check=False).stderr

            run("apply", "-f", "-")
            probe = (*command, "--dry-run=server", "-n", workspace.namespace)
            eventually("the refusal is in force", lambda: _MESSAGE in run(*probe))
            lift = stack.enter_context(ExitStack())
            lift.callback(run, "delete", "--ignore-not-found", "-f", "-")
            return lift.close

        yield refuse
