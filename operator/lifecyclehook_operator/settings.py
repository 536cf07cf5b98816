"""Every setting of the operator. They are read once, at start; an invalid value fails the start."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENV_PREFIX = "LIFECYCLEHOOK_OPERATOR_"

#: IAM and AS of all regions.
_ENDPOINTS = (
    "iam.eu-de.otc.t-systems.com",
    "as.eu-de.otc.t-systems.com",
    "iam.eu-nl.otc.t-systems.com",
    "as.eu-nl.otc.t-systems.com",
    "iam-pub.eu-ch2.sc.otc.t-systems.com",
    "as.eu-ch2.sc.otc.t-systems.com",
)
_ENDPOINT = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.*?-]+)(:([0-9]+|\*))?", re.IGNORECASE)


class Settings(BaseSettings):
    """Run the operator until SIGTERM or SIGINT.

    Each option can also be set by an environment variable, for example --health-port by
    LIFECYCLEHOOK_OPERATOR_HEALTH_PORT; separate several values by commas there. In a pod, the operator connects to the
    pod's own cluster, elsewhere to the current context of KUBECONFIG.

    The operator's own cloud credentials are read from the environment only: OS_AUTH_URL; OS_USERNAME, OS_PASSWORD and
    OS_USER_DOMAIN_NAME, or OS_ACCESS_KEY, OS_SECRET_KEY and OS_SECURITY_TOKEN; OS_PROJECT_NAME or OS_PROJECT_ID;
    OS_REGION_NAME; OS_CACERT; and AS_ENDPOINT if AS is neither in IAM's catalog nor at as.<region>.otc.t-systems.com.
    Alternatively, OS_CLIENT_CONFIG_FILE names a clouds.yaml file and OS_CLOUD the cloud in it.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        cli_prog_name="lifecyclehook-operator run",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        allow_inf_nan=False,
        frozen=True,
    )

    namespace: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespace to serve; repeatable. By default, all namespaces are served."
    )
    all_namespaces: bool = Field(default=False, description="Serve all namespaces, which is the default.")
    default_credentials_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("*",),
        description="Namespaces that may use the operator's own credentials, as a glob; repeatable.",
    )
    allowed_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        default=_ENDPOINTS,
        description="Hosts that credentials in Secrets may connect to, as a glob in which * stays within one label, "
        "with :port unless it is 443; repeatable. The hosts and ports of the operator's own credentials are always "
        "allowed.",
    )
    health_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the probes /healthz and /readyz; 0 disables them."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of the Prometheus metrics, /metrics; 0 disables them."
    )
    leader_elect: bool = Field(
        default=False,
        description="Elect a leader by a Lease: several replicas can run, and only the leader reconciles.",
    )
    lease_namespace: str = Field(
        default="", description="Namespace of the Lease; by default, the namespace of the pod."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest severity that is logged: debug, info, warning or error."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Format of the log: text or json.")
    resync_interval_seconds: float = Field(
        default=300,
        ge=1,
        description="Interval, in seconds, at which each hook is compared with AS; one call per AS group.",
    )
    suspension_interval_seconds: float = Field(
        default=30,
        ge=10,
        description="Interval, in seconds, at which the suspended instances of hooks with suspensionPolicy Watch are "
        "listed; one call per AS group.",
    )
    backoff_min_seconds: float = Field(
        default=1,
        gt=0,
        description="Initial delay, in seconds, before a retry after the cloud failed; it doubles each time.",
    )
    backoff_max_seconds: float = Field(
        default=300, gt=0, description="Longest delay, in seconds, before a retry after the cloud failed."
    )
    slow_retry_min_seconds: float = Field(
        default=30,
        gt=0,
        description="Initial delay, in seconds, of slow retries (missing group, quota, permissions, credentials); it "
        "doubles each time.",
    )
    slow_retry_max_seconds: float = Field(default=600, gt=0, description="Longest delay, in seconds, of slow retries.")
    cloud_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="Time limit, in seconds, for a request to the cloud, from connecting to the end of the response.",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Calls of AS with the same credentials at a time; those about one AS group take up to a quarter.",
    )
    shutdown_grace_seconds: float = Field(
        default=20, ge=0, description="Grace period, in seconds, for in-flight calls after SIGTERM."
    )

    @field_validator("namespace", "default_credentials_namespaces", "allowed_endpoints", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("allowed_endpoints")
    @classmethod
    def _are_endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _ENDPOINT.fullmatch(each):
                raise ValueError(f"{each!r} is not a host or host:port")
        return value

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.namespace and self.all_namespaces:
            raise ValueError("either --namespace or --all-namespaces, not both")
        if self.backoff_min_seconds > self.backoff_max_seconds:
            raise ValueError("--backoff-min-seconds is greater than --backoff-max-seconds")
        if self.slow_retry_min_seconds > self.slow_retry_max_seconds:
            raise ValueError("--slow-retry-min-seconds is greater than --slow-retry-max-seconds")
        return self
