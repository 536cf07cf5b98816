"""IAM: what clients of this cloud want before they can call AS."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support.simulator import Simulator
from tests.support.simulator.caller import Caller, error_of, token_request


@pytest.mark.parametrize("path", ["/", ""])
def test_the_root_lists_v3_with_a_link_to_itself(simulator: Simulator, path: str) -> None:
    response = httpx.get(f"{simulator.url}{path}", trust_env=False)
    assert response.status_code == 300
    (version,) = response.json()["versions"]["values"]
    assert version["id"].startswith("v3")
    assert version["status"] == "stable"
    assert {"rel": "self", "href": f"{simulator.url}/v3/"} in version["links"]


@pytest.mark.parametrize("path", ["/v3", "/v3/"])
def test_v3_describes_itself(simulator: Simulator, path: str) -> None:
    version = httpx.get(f"{simulator.url}{path}", trust_env=False).json()["version"]
    assert {"rel": "self", "href": f"{simulator.url}/v3/"} in version["links"]


def test_a_project_scoped_token_says_who_where_and_until_when(caller: Caller) -> None:
    response = caller.authenticate()
    token = response.json()["token"]
    assert response.status_code == 201
    assert len(response.headers["X-Subject-Token"]) > 100
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "demo"
    assert token["user"]["domain"].keys() == {"id", "name"}
    assert token["project"]["id"] == caller.simulator.project_id
    assert token["project"]["name"] == "eu-de_demo"
    assert token["project"]["domain"] == token["user"]["domain"]
    assert token["roles"]
    assert "domain" not in token
    issued, expires = (datetime.strptime(token[k], "%Y-%m-%dT%H:%M:%S.%f%z") for k in ("issued_at", "expires_at"))
    assert expires - issued == timedelta(hours=24)
    assert abs(datetime.now(UTC) - issued) < timedelta(minutes=1)


def test_the_catalog_has_as_at_its_public_address_in_the_region_of_the_project(caller: Caller) -> None:
    project_id = caller.simulator.add_project("eu-nl_other")
    catalog = caller.log_in(scope={"project": {"id": project_id}}).json()["token"]["catalog"]
    (entry,) = (entry for entry in catalog if entry["type"] == "asv1")
    (endpoint,) = entry["endpoints"]
    assert endpoint["interface"] == "public"
    assert endpoint["region"] == endpoint["region_id"] == "eu-nl"
    assert endpoint["url"] == f"{caller.simulator.url}/autoscaling-api/v1/{project_id}"
    assert {"identity", "iam"} <= {entry["type"] for entry in catalog}
    (without_project,) = (entry for entry in catalog if entry["type"] == "as")
    assert without_project["endpoints"][0]["url"] == f"{caller.simulator.url}/autoscaling-api/v1"
    assert caller.http.get(f"{caller.simulator.auth_url}/auth/catalog").json()["catalog"] == catalog


@pytest.mark.parametrize("scope_by", ["name", "id", "unscoped"])
def test_a_domain_scoped_token_stands_beside_a_project_scoped_one_and_is_of_no_use_for_as(
    caller: Caller, scope_by: str
) -> None:
    assert caller.create().status_code == 200
    domain = caller.authenticate().json()["token"]["user"]["domain"]
    scope = {} if scope_by == "unscoped" else {"domain": {scope_by: domain[scope_by]}}
    project_token = caller.http.headers["X-Auth-Token"]
    token = caller.log_in(scope=scope).json()["token"]
    assert token["domain"] == domain
    assert "project" not in token
    assert "asv1" not in {entry["type"] for entry in token["catalog"]}
    assert error_of(caller.list()) == (400, "AS.0008")
    caller.http.headers["X-Auth-Token"] = project_token
    assert caller.list().status_code == 200


def test_users_and_projects_can_be_named_by_id_or_by_name_and_domain(caller: Caller) -> None:
    token = caller.authenticate().json()["token"]
    user, project = token["user"], token["project"]
    for domain in ({"id": user["domain"]["id"]}, {"name": user["domain"]["name"]}):
        assert caller.authenticate(domain=domain).status_code == 201
        scope = {"project": {"name": project["name"], "domain": domain}}
        assert caller.authenticate(scope=scope).json()["token"]["project"] == project
    assert caller.authenticate(id=user["id"]).json()["token"]["user"]["id"] == user["id"]
    assert caller.authenticate(scope={"project": {"id": project["id"]}}).json()["token"]["project"] == project


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong"},
        {"password": ""},
        {"name": "nobody"},
        {"id": "nobody"},
        {"domain": {"name": "elsewhere"}},
        {"domain": {"id": "elsewhere"}},
        {"scope": {"project": {"name": "eu-de_nowhere"}}},
        {"scope": {"project": {"id": "nowhere"}}},
        {"scope": {"project": {"name": "eu-de_demo", "domain": {"name": "elsewhere"}}}},
        {"scope": {"domain": {"name": "elsewhere"}}},
    ],
    ids=str,
)
def test_wrong_credentials_get_a_401_in_the_shape_of_keystone(caller: Caller, wrong: dict[str, object]) -> None:
    response = caller.authenticate(**wrong)
    assert response.status_code == 401
    assert "X-Subject-Token" not in response.headers
    error = response.json()["error"]
    assert (error["code"], error["title"]) == (401, "Unauthorized")
    assert error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"null", b'{"auth": {"identity": {"methods": ["password"]}}}']
)
def test_a_malformed_token_request_is_a_400(caller: Caller, body: bytes) -> None:
    response = caller.http.post(f"{caller.simulator.auth_url}/auth/tokens", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == 400


def test_a_user_of_another_domain_gets_no_token_for_our_project(caller: Caller) -> None:
    caller.simulator.add_user("guest", "guest-password", domain="elsewhere")
    guest = {"name": "guest", "password": "guest-password", "domain": {"name": "elsewhere"}}
    assert caller.authenticate(scope={"domain": {"name": "elsewhere"}}, **guest).status_code == 201
    assert caller.authenticate(**guest).status_code == 401


def test_a_changed_password_replaces_the_old_one(caller: Caller) -> None:
    caller.simulator.add_user("demo", "changed")
    assert caller.authenticate().status_code == 401
    assert caller.authenticate(password="changed").status_code == 201


def test_a_token_ends_with_its_lifetime(caller: Caller) -> None:
    caller.simulator.set_token_lifetime(600)
    token = caller.log_in().json()["token"]
    assert token["expires_at"] > token["issued_at"]
    caller.simulator.set_clock_skew(590)
    assert caller.list().status_code == 200
    caller.simulator.set_clock_skew(601)
    assert error_of(caller.list()) == (401, "AS.0006")


def test_a_revoked_token_is_refused_and_a_fresh_one_taken(caller: Caller) -> None:
    caller.simulator.revoke_tokens()
    assert error_of(caller.list()) == (401, "AS.0006")
    caller.log_in()
    assert caller.list().status_code == 200


def test_projects_are_found_by_name(caller: Caller) -> None:
    caller.simulator.add_project("eu-de_other")
    caller.simulator.add_project("eu-de_foreign", domain="elsewhere")
    url = f"{caller.simulator.auth_url}/projects"
    (project,) = caller.http.get(url, params={"name": "eu-de_demo"}).json()["projects"]
    assert project["id"] == caller.simulator.project_id
    assert [found["name"] for found in caller.http.get(url).json()["projects"]] == ["eu-de_demo", "eu-de_other"]


def test_a_user_without_the_right_may_list_only_what_there_is_a_token_for(caller: Caller) -> None:
    caller.simulator.add_project("eu-de_foreign", domain="elsewhere")
    caller.simulator.add_user("limited", "limited-password", permissions=["as:lifecycleHooks:list"])
    token = caller.log_in(name="limited", password="limited-password").json()["token"]
    refused = caller.http.get(f"{caller.simulator.auth_url}/projects", params={"name": "eu-de_demo"})
    assert refused.status_code == 403
    assert (refused.json()["error"]["code"], refused.json()["error"]["title"]) == (403, "Forbidden")
    (project,) = caller.http.get(f"{caller.simulator.auth_url}/auth/projects").json()["projects"]
    assert project["id"] == caller.simulator.project_id
    caller.simulator.add_user("limited", "limited-password", permissions=["iam:projects:listProjects"])
    assert caller.http.get(f"{caller.simulator.auth_url}/projects").status_code == 200
    (domain,) = caller.http.get(f"{caller.simulator.auth_url}/auth/domains").json()["domains"]
    assert (domain["id"], domain["name"]) == (token["user"]["domain"]["id"], token["user"]["domain"]["name"])


def fail_logins(caller: Caller, times: int) -> None:
    for _ in range(times):
        response = caller.authenticate(password="wrong")
        assert (response.status_code, response.json()["error"]["title"]) == (401, "Unauthorized")


def is_locked(caller: Caller) -> bool:
    response = caller.authenticate()
    assert response.status_code in (201, 401)
    return response.status_code == 401 and response.json()["error_code"] == "IAM.0061"


def test_five_wrong_passwords_within_a_quarter_of_an_hour_lock_the_user_for_as_long(caller: Caller) -> None:
    fail_logins(caller, 4)
    assert not is_locked(caller)
    caller.simulator.set_clock_skew(840)
    fail_logins(caller, 1)
    assert is_locked(caller)
    assert caller.authenticate(password="wrong").json()["error_code"] == "IAM.0061"
    assert caller.list().status_code == 200
    caller.simulator.set_clock_skew(1700)
    assert is_locked(caller)
    caller.simulator.set_clock_skew(1800)
    assert not is_locked(caller)
    fail_logins(caller, 4)
    assert not is_locked(caller)


def test_wrong_passwords_that_are_far_enough_apart_lock_nobody(caller: Caller) -> None:
    for quarter in range(3):
        caller.simulator.set_clock_skew(quarter * 901)
        fail_logins(caller, 4)
    assert not is_locked(caller)


def test_the_wrong_passwords_of_one_user_and_a_wrong_project_do_not_lock_another(caller: Caller) -> None:
    caller.simulator.add_user("other", "other-password")
    for _ in range(5):
        assert caller.authenticate(name="other", password="wrong").status_code == 401
        assert caller.authenticate(scope={"project": {"id": "nowhere"}}).status_code == 401
    assert not is_locked(caller)
    assert caller.authenticate(name="other", password="other-password").json()["error_code"] == "IAM.0061"


@pytest.mark.parametrize("path", ["projects", "auth/catalog", "auth/projects", "auth/domains"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_iam_itself_wants_a_token(simulator: Simulator, path: str, token: str) -> None:
    response = httpx.get(f"{simulator.auth_url}/{path}", headers={"X-Auth-Token": token}, trust_env=False)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == 401


def test_only_the_password_method_is_known(caller: Caller) -> None:
    request = token_request(caller.simulator)
    request["auth"]["identity"]["methods"] = ["totp"]
    assert caller.http.post(f"{caller.simulator.auth_url}/auth/tokens", json=request).status_code == 401
