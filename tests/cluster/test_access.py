"""Where credentials may lead, and who may use the operator's own."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess
from tests.support.simulator import Simulator, run_simulator
from tests.support.workspace import Workspace, ready


def test_only_some_namespaces_may_use_the_operators_own_credentials(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    options = {**fast, "default_credentials_namespaces": f"other-*,{workspace.namespace[:-1]}?"}
    with OperatorProcess(cluster, cloud.credentials_env(), **options), Workspace(cluster, cloud) as other:
        workspace.create()
        workspace.wait_ready()
        other.create()
        body = other.wait_reason("CredentialsNotFound")
        assert "--default-credentials-namespaces" in ready(body)["message"]
        assert cloud.requests(group_id=other.group_id) == []
        other.put_secret("otc", other.clouds_yaml())
        other.patch("hook", {"spec": {"credentialsRef": {"secretName": "otc"}}})
        other.wait_ready()


def test_an_endpoint_that_is_not_allowed_is_not_called(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    with OperatorProcess(cluster, {}, **{**fast, "allowed_endpoints": "127.0.0.1,localhost:*"}):
        before = len(cloud.requests())
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.create(credentialsRef={"secretName": "otc"})
        body = workspace.wait_reason("CredentialsInvalid")
        assert f"host {urlsplit(cloud.url).netloc} is not in --allowed-endpoints" in ready(body)["message"]
        content: dict[str, Any] = yaml.safe_load(
            workspace.clouds_yaml(auth_url=cloud.auth_url.replace("127.0.0.1", "localhost"))
        )
        content["clouds"]["otc"]["as_endpoint_override"] = "https://as.example.com"
        workspace.put_secret("otc", yaml.safe_dump(content))
        body = workspace.wait("AS is refused too", lambda body: "as.example.com" in ready(body).get("message", ""))
        assert len(cloud.requests()) == before


def test_the_hosts_of_the_operators_own_credentials_are_allowed(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    with OperatorProcess(cluster, cloud.credentials_env(), **{**fast, "allowed_endpoints": "as.example.com"}):
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.create(credentialsRef={"secretName": "otc"})
        workspace.wait_ready()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        pytest.param({"OS_PASSWORD": ""}, "password is missing", id="no password"),
        pytest.param({"OS_CLIENT_CONFIG_FILE": "{folder}/malformed"}, "is not valid YAML in line", id="malformed"),
        pytest.param({"OS_CLIENT_CONFIG_FILE": "{folder}"}, "Is a directory", id="unreadable"),
        pytest.param({"OS_CLOUD": "otc"}, "OS_CLOUD is set, but there is no", id="missing"),
        pytest.param({"OS_CACERT": "{folder}/absent.pem"}, "No such file", id="no authorities"),
    ],
)
def test_broken_credentials_of_the_operators_own_stop_nobody_who_has_others(
    workspace: Workspace, fast: dict[str, float], tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    cluster, cloud = workspace.cluster, workspace.cloud
    (tmp_path / "malformed").write_text("clouds: [p-hidden")
    broken = {name: value.format(folder=tmp_path) for name, value in variables.items()}
    with OperatorProcess(cluster, {**cloud.credentials_env(), **broken}, **fast) as operator:
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.create("good", credentialsRef={"secretName": "otc"})
        workspace.create("bad")
        workspace.wait_ready("good")
        body = workspace.wait_reason("CredentialsInvalid", "bad")
        assert complaint in ready(body)["message"]
        log = operator.log.read_text()
    assert log.count("The operator's own credentials can't be used") == 1
    assert complaint in log
    for text in (log, str(body)):
        assert "p-hidden" not in text
        assert cloud.find_secrets(text) == []


def test_a_private_authority_is_trusted_where_the_operators_environment_names_it(
    cluster: ControlPlane, fast: dict[str, float]
) -> None:
    certificate, key = (cluster.work_dir / "pki" / f"apiserver.{ending}" for ending in ("crt", "key"))
    with (
        run_simulator(tls=(certificate, key)) as cloud,
        OperatorProcess(cluster, {**cloud.credentials_env(), "OS_CACERT": str(certificate)}, **fast),
        Workspace(cluster, cloud) as own,
    ):
        own.create()
        own.wait_ready()


def test_a_redirect_is_not_followed(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    with OperatorProcess(cluster, {}, **fast):
        cloud.fault("token", status=307, headers={"Location": f"{cloud.url}/elsewhere"}, count=None)
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.create(credentialsRef={"secretName": "otc"})
        workspace.wait_reason("UnexpectedResponse")
        assert not [request for request in cloud.requests() if request.path == "/elsewhere"]


def test_a_private_authority_is_trusted_where_the_secret_brings_it(
    cluster: ControlPlane, fast: dict[str, float]
) -> None:
    """The API server's own certificate and key, of this machine, serve the simulated cloud as well."""
    certificate, key = (cluster.work_dir / "pki" / f"apiserver.{ending}" for ending in ("crt", "key"))
    with (
        run_simulator(tls=(certificate, key)) as cloud,
        OperatorProcess(cluster, {}, **fast),
        Workspace(cluster, cloud) as own,
    ):
        own.put_secret("otc", own.clouds_yaml())
        own.create(credentialsRef={"secretName": "otc"})
        body = own.wait_reason("CloudUnavailable")
        assert "certificate verify failed" in body["status"]["error"]["message"]
        assert cloud.requests() == []
        own.put_secret("otc", Path(certificate).read_text(), key="cacert")
        own.wait_ready()
