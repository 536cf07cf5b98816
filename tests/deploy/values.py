"""The values of the Helm chart: their defaults, rules and words, from which values.yaml and its schema are made."""

import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True)


class Image(_Values):
    repository: str = Field(min_length=1, description="Registry and name.")
    tag: str = Field("", description="By default, the chart's appVersion.")
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$", description="If set, exactly this image: sha256:...")

    @classmethod
    def parse(cls, reference: str) -> Self:
        """Return the image of a reference: NAME[:TAG][@DIGEST]."""
        rest, _, digest = reference.partition("@")
        path, slash, name = rest.rpartition("/")
        name, _, tag = name.partition(":")
        return cls(repository=f"{path}{slash}{name}", tag=tag, digest=digest)

    def reference(self, version: str) -> str:
        """Return what the chart of a version makes of it."""
        return f"{self.repository}:{self.tag or version}" + (f"@{self.digest}" if self.digest else "")


class PullSecret(_Values):
    name: Name


class Credentials(_Values):
    secret_name: Name = Field(
        description="A Secret in the namespace of the release with OS_AUTH_URL, OS_USERNAME and so on. Without it, "
        "every hook needs spec.credentialsRef. The operator reads it at its start only."
    )


class Metrics(_Values):
    enabled: bool = Field(
        False, description="Serve /metrics on port 9090, by a Service, and have the NetworkPolicy let Prometheus in."
    )
    service_monitor: bool = Field(True, description="A ServiceMonitor; needs the CRDs of the Prometheus operator.")
    prometheus_rule: bool = Field(True, description="Sample alerts; need the CRDs of the Prometheus operator.")
    dashboard: bool = Field(True, description="A ConfigMap for the dashboard sidecar of Grafana.")
    labels: dict[str, str] = Field(
        {}, description="For ServiceMonitor and PrometheusRule, such as release: kube-prometheus-stack."
    )


class CertificateAuthority(_Values):
    config_map_name: Name | Annotated[str, Field(max_length=0)] = Field(
        "",
        description="A ConfigMap in the namespace of the release whose key ca.crt, in PEM format, has the certificate "
        "authority of IAM and AS, for the operator's own credentials. By default, the public ones.",
    )


class Values(_Values):
    """All of them; `of` fills in what deploy/base says."""

    image: Image
    image_pull_secrets: list[PullSecret] = Field([], description="Such as [{name: registry}].")
    replicas: int = Field(
        ge=0,
        description="More than one elect a leader by a Lease, and the others stand by: as overlays/high-availability. "
        "Scale the Deployment to 0 before you go from one to several or back.",
    )
    namespaces: list[Namespace] = Field(
        [],
        description="The namespaces to serve, which must exist, with a Role in each. By default all, with a "
        "ClusterRole. No other operator may serve them.",
    )
    user_roles: bool = Field(
        True, description="The ClusterRoles for users. Set it to false in all releases of a cluster but one."
    )
    credentials: Credentials
    metrics: Metrics = Metrics()
    resources: dict[str, Any] = Field(description="Enough for 1,000 hooks, with a limit for 5,000.")
    extra_args: list[str] = Field([], description="More options of `lifecyclehook-operator run`: [--log-format=json].")
    ca: CertificateAuthority = CertificateAuthority()

    @classmethod
    def of(cls, deployment: dict[str, Any]) -> Self:
        """Return the values that render this Deployment, that of deploy/base."""
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        return cls(
            image=Image(repository=container["image"].rpartition(":")[0]),
            replicas=deployment["spec"]["replicas"],
            credentials=Credentials(secret_name=container["envFrom"][0]["secretRef"]["name"]),
            resources=container["resources"],
        )

    def as_yaml(self) -> str:
        """Return the values with what each means."""
        return "\n".join(_document(self, 0)) + "\n"

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the schema that Helm checks a user's values against."""
        schema = cls.model_json_schema()
        # Helm adds it where the chart is a dependency of another.
        schema["properties"]["global"] = {"type": "object"}
        return schema


def _document(values: BaseModel, indent: int) -> Iterator[str]:
    pad = " " * indent
    for name, field in type(values).model_fields.items():
        value = getattr(values, name)
        if not indent:
            yield ""
        if field.description:
            comment = f"{pad}# "
            yield from textwrap.wrap(field.description, 120, initial_indent=comment, subsequent_indent=comment)
        if isinstance(value, BaseModel):
            yield f"{pad}{field.alias}:"
            yield from _document(value, indent + 2)
        else:
            text = yaml.safe_dump({field.alias: value}, sort_keys=False, width=10**9).rstrip("\n")
            yield textwrap.indent(text, pad)
