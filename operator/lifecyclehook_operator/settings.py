"""Every knob of the operator. Read once, at start; a wrong value fails the start."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENV_PREFIX = "LIFECYCLEHOOK_OPERATOR_"


class Settings(BaseSettings):
    """Run the operator until SIGTERM or SIGINT.

    Each option can also be given by an environment variable: --health-port by LIFECYCLEHOOK_OPERATOR_HEALTH_PORT, and
    so on; where several may be given, they are then separated by commas. The cluster is that of the pod, else that of
    KUBECONFIG.
    The operator's own credentials for the cloud come from the environment alone: OS_AUTH_URL; OS_USERNAME, OS_PASSWORD,
    OS_USER_DOMAIN_NAME, or OS_ACCESS_KEY, OS_SECRET_KEY, OS_SECURITY_TOKEN; OS_PROJECT_NAME or OS_PROJECT_ID;
    OS_REGION_NAME, OS_CACERT; and AS_ENDPOINT where AS is neither in IAM's catalog nor at
    as.<region>.otc.t-systems.com. Or from a clouds.yaml: OS_CLOUD names the cloud, OS_CLIENT_CONFIG_FILE the file.
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
        default=(), description="Namespace to serve; may be given several times. Default: all namespaces."
    )
    all_namespaces: bool = Field(default=False, description="Serve all namespaces, as is the default.")
    default_credentials_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("*",),
        description="Glob of namespaces that may use the operator's own credentials; may be given several times.",
    )
    allowed_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("*.otc.t-systems.com",),
        description="Glob of hosts that credentials in Secrets may lead to; may be given several times. The hosts of "
        "the operator's own credentials are always allowed.",
    )
    health_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of /healthz and /readyz, the probes; 0 switches them off."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics, for Prometheus; 0 switches it off."
    )
    leader_elect: bool = Field(
        default=False, description="Work only while holding a Lease, so that several replicas can run, and one works."
    )
    lease_namespace: str = Field(default="", description="Namespace of that Lease. Default: that of the pod.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity of what is logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Form of the log lines.")
    resync_interval_seconds: float = Field(
        default=300, ge=1, description="How often each hook is compared with what AS has, in seconds."
    )
    backoff_min_seconds: float = Field(
        default=1, gt=0, description="First wait after a failure of the cloud, in seconds; it doubles each time."
    )
    backoff_max_seconds: float = Field(default=300, gt=0, description="Longest such wait, in seconds.")
    slow_retry_min_seconds: float = Field(
        default=30,
        gt=0,
        description="First wait where the world is not ready for the hook, in seconds; it doubles too.",
    )
    slow_retry_max_seconds: float = Field(default=600, gt=0, description="Longest such wait, in seconds.")
    cloud_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="Longest time that one request to the cloud may take, from connecting to the end of the response, "
        "in seconds.",
    )
    concurrency: int = Field(
        default=16, ge=1, le=1000, description="How many hooks of one project may be in work at a time."
    )
    shutdown_grace_seconds: float = Field(
        default=20, ge=0, description="How long calls at work may take to end after SIGTERM, in seconds."
    )

    @field_validator("namespace", "default_credentials_namespaces", "allowed_endpoints", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.namespace and self.all_namespaces:
            raise ValueError("either --namespace or --all-namespaces, not both")
        if self.backoff_min_seconds > self.backoff_max_seconds:
            raise ValueError("--backoff-min-seconds is greater than --backoff-max-seconds")
        if self.slow_retry_min_seconds > self.slow_retry_max_seconds:
            raise ValueError("--slow-retry-min-seconds is greater than --slow-retry-max-seconds")
        return self
