"""Who the operator is in the cloud: by its own environment, or by a Secret beside the resource."""

from collections.abc import Iterator

import pytest
import yaml

from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import OperatorProcess
from tests.support.workspace import Workspace, condition, ready


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator with no credentials of its own."""
    with OperatorProcess(cluster, {}, **fast) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")

#: Some hundred bytes, which would become a mapping of a billion keys.
NESTED_MERGE_KEYS = "\n".join(
    [
        "a0: &a0 {k: v}",
        *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10)),
        "clouds: {otc: {auth: {<<: *a9}}}",
    ]
)


def test_a_secret_of_the_namespace_serves(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    assert workspace.wait_ready()["status"]["projectId"] == workspace.cloud.project_id
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_cloud_can_be_chosen_by_name(workspace: Workspace) -> None:
    content = yaml.safe_load(workspace.clouds_yaml())
    content["clouds"]["other"] = content["clouds"].pop("otc")
    workspace.put_secret("otc", yaml.safe_dump(content))
    workspace.create(credentialsRef={"secretName": "otc", "cloudName": "other"})
    workspace.wait_ready()


def test_without_any_credentials_the_status_says_so(workspace: Workspace) -> None:
    workspace.create()
    body = workspace.wait_reason("CredentialsNotFound")
    assert "spec.credentialsRef" in ready(body)["message"]
    assert condition(body, "Stalled")["status"] == "True"


def test_a_secret_that_comes_later_is_found(workspace: Workspace) -> None:
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("CredentialsNotFound")
    assert f"Secret {workspace.namespace}/otc" in ready(body)["message"]
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.wait_ready()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("clouds: [", "not valid YAML", id="not-yaml"),
        pytest.param("clouds: {}", "no cloud named 'otc'", id="no-such-cloud"),
        pytest.param("clouds: {otc: {}}", "no mapping named auth", id="no-auth"),
        pytest.param(
            "clouds: {otc: {auth: {username: u, password: p-hidden}}}", "auth_url is missing", id="no-auth-url"
        ),
        pytest.param(NESTED_MERGE_KEYS, "merges in more than 100 fields", id="nested-merge-keys"),
        pytest.param("#" * 65_537, "64 KiB", id="too-long"),
        pytest.param(
            "clouds: {otc: {region_name: '[', auth: {password: p-hidden}}}", "region_name may contain only", id="region"
        ),
    ],
)
def test_a_malformed_secret_is_explained_without_its_content(workspace: Workspace, content: str, message: str) -> None:
    workspace.put_secret("otc", content)
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("CredentialsInvalid")
    assert message in ready(body)["message"]
    assert "p-hidden" not in str(body)


def test_a_secret_without_clouds_yaml_is_explained(workspace: Workspace) -> None:
    workspace.put_secret("otc", "x", key="other.yaml")
    workspace.create(credentialsRef={"secretName": "otc"})
    assert "no key clouds.yaml" in ready(workspace.wait_reason("CredentialsInvalid"))["message"]


def test_a_wrong_password_is_an_authentication_failure_and_no_call_to_as(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    workspace.cloud.add_user(workspace.namespace, "the-password")
    workspace.put_secret("otc", workspace.clouds_yaml(username=workspace.namespace, password="not-the-password"))
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("AuthenticationFailed")
    assert body["status"]["error"]["operation"] == "authenticate"
    assert body["status"]["error"]["httpStatus"] == 401
    assert workspace.cloud.requests(group_id=workspace.group_id) == []
    assert "not-the-password" not in str(body)
    assert "not-the-password" not in operator.log.read_text()


def test_an_unknown_project_is_explained(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml(project_name="eu-de_absent"))
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait(
        "the project is not found",
        lambda body: ready(body).get("reason") in ("CredentialsInvalid", "AuthenticationFailed"),
    )
    assert body["status"]["error"]["operation"] == "authenticate"


def test_a_refused_connection_is_transient(workspace: Workspace) -> None:
    (closed_port,) = free_ports(1)
    workspace.put_secret("otc", workspace.clouds_yaml(auth_url=f"http://127.0.0.1:{closed_port}/v3"))
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("CloudUnavailable")
    assert "cannot connect to 127.0.0.1" in body["status"]["error"]["message"]
    assert body["status"]["error"]["retry"] == "Backoff"


def test_a_refused_connection_to_as_is_transient(workspace: Workspace) -> None:
    (closed_port,) = free_ports(1)
    content = yaml.safe_load(workspace.clouds_yaml())
    content["clouds"]["otc"]["as_endpoint_override"] = f"http://127.0.0.1:{closed_port}"
    workspace.put_secret("otc", yaml.safe_dump(content))
    workspace.create(credentialsRef={"secretName": "otc"})
    error = workspace.wait_reason("CloudUnavailable")["status"]["error"]
    assert (error["operation"], error["retry"]) == ("create", "Backoff")


@pytest.mark.parametrize("is_temporary", [False, True])
def test_an_access_key_serves_without_a_token(workspace: Workspace, is_temporary: bool) -> None:
    access, secret, *security_token = workspace.cloud.add_access_key(security_token=is_temporary)
    content = yaml.safe_load(workspace.clouds_yaml())
    auth = content["clouds"]["otc"]["auth"]
    for name in ("username", "password", "user_domain_name"):
        del auth[name]
    auth |= {"ak": access, "sk": secret} | ({"security_token": security_token[0]} if is_temporary else {})
    workspace.put_secret("otc", yaml.safe_dump(content))
    tokens = len(workspace.cloud.requests("token"))
    workspace.create(credentialsRef={"secretName": "otc"}, notificationMetadata="Größe: 漢字")
    workspace.wait_ready()
    assert {request.auth for request in workspace.cloud.requests(group_id=workspace.group_id)} == {"signature"}
    assert len(workspace.cloud.requests("token")) == tokens
    workspace.cloud.revoke_access_key(access)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    body = workspace.wait_reason("AuthenticationFailed")
    assert workspace.cloud.find_secrets(str(body)) == []


def test_no_secret_is_told_at_debug_level_whatever_goes_wrong(workspace: Workspace, operator: OperatorProcess) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    token_effects = [{"status": 500, "stage": "after"}, {"drop": True, "stage": "after"}, {"status": 201, "text": "{"}]
    for number, effect in enumerate(token_effects):
        workspace.cloud.fault("token", **effect)
        workspace.cloud.revoke_tokens()
        workspace.patch("hook", {"spec": {"defaultTimeout": 61 + number}})
        workspace.wait_ready()
    log = operator.log.read_text()
    assert "Logged in" in log
    assert workspace.cloud.find_secrets(log) == []
    events = workspace.core.list_namespaced_event(workspace.namespace).items
    assert workspace.cloud.find_secrets(str(events) + str(workspace.all())) == []
    assert workspace.cloud.find_secrets(workspace.clouds_yaml()) == ["password"]
