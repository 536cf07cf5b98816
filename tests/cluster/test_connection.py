"""What a kubeconfig says of the connection holds for the operator's own requests."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kubernetes.aio.config import kube_config

from lifecyclehook_operator.kube.client import connect
from lifecyclehook_operator.kube.errors import KubernetesError
from tests.support.controlplane import ControlPlane

DEADLINE_SECONDS = 30


@pytest.fixture
def set_kubeconfig(cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what has the administrator's kubeconfig used, with some more fields of the cluster."""

    def set_kubeconfig(**fields: str) -> None:
        content = yaml.safe_load(cluster.kubeconfig.read_text())
        content["clusters"][0]["cluster"].update({name.replace("_", "-"): value for name, value in fields.items()})
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(content))
        # The client reads KUBECONFIG when it is imported.
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    return set_kubeconfig


async def test_the_certificate_is_to_have_the_name_of_the_server(set_kubeconfig: Callable[..., None]) -> None:
    set_kubeconfig(tls_server_name="kubernetes.default.svc")
    async with asyncio.timeout(DEADLINE_SECONDS), connect() as client:
        assert await client.is_crd_installed()
    set_kubeconfig(tls_server_name="kubernetes.example.com")
    async with asyncio.timeout(DEADLINE_SECONDS), connect() as client:
        with pytest.raises(KubernetesError, match=r"CERTIFICATE_VERIFY_FAILED.*kubernetes\.example\.com"):
            await client.is_crd_installed()


@pytest.mark.parametrize("server", ["127.0.0.1:8080", "localhost:8080", "ftp://127.0.0.1", "https://127.0.0.1:99999"])
async def test_an_address_that_is_none_is_an_error_of_ours(set_kubeconfig: Callable[..., None], server: str) -> None:
    set_kubeconfig(server=server)
    with pytest.raises(KubernetesError, match="no URL of HTTP"):
        async with connect():
            pass


async def test_requests_go_by_the_proxy(cluster: ControlPlane, set_kubeconfig: Callable[..., None]) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
    ):
        host, port = server.sockets[0].getsockname()
        set_kubeconfig(proxy_url=f"http://{host}:{port}")
        async with connect() as client:
            with pytest.raises(KubernetesError, match="403"):
                await client.is_crd_installed()
    assert asked == [f"CONNECT {cluster.url.removeprefix('https://')} HTTP/1.1\r\n".encode()]
