"""`python -m tests.support.simulator`: the simulated cloud as a process of its own."""

import argparse
import asyncio
import json
import os
import secrets
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from .cloud import DEFAULT_DOMAIN, Cloud, Project, User
from .server import Server

SHUTDOWN_SECONDS = 1.0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.simulator",
        description="A simulated Open Telekom Cloud: IAM, the lifecycle hooks of Auto Scaling, and under /_sim/ a "
        "control API (no authentication: keep it on loopback) for groups, topics, faults and the log of requests.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--project", type=_parse_project, metavar="NAME[=ID]", help="project (default: eu-de_demo)")
    parser.add_argument("--domain", default=DEFAULT_DOMAIN, help="domain of project and user (default: %(default)s)")
    parser.add_argument("--username", default="demo", help="user name (default: %(default)s)")
    parser.add_argument("--password", help="password of the user (default: made up at start)")
    parser.add_argument("--group", action="append", default=[], metavar="ID", help="AS group; repeatable")
    parser.add_argument("--topic", action="append", default=[], metavar="URN", help="SMN topic; repeatable")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="how long each AS call takes")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate (PEM)")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _parse_project(text: str) -> tuple[str, str | None]:
    name, _, project_id = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError("a project needs a name")
    return name, project_id or None


def seed_cloud(options: argparse.Namespace) -> tuple[Cloud, User, Project]:
    cloud = Cloud()
    cloud.settings.latency_seconds = options.latency
    name, project_id = options.project or ("eu-de_demo", None)
    project = cloud.add_project(name, project_id, options.domain)
    user = cloud.add_user(options.username, options.password or secrets.token_urlsafe(16), options.domain)
    for group_id in options.group:
        cloud.add_group(project.id, group_id)
    cloud.topics.update(options.topic)
    return cloud, user, project


async def serve(options: argparse.Namespace) -> None:
    cloud, user, project = seed_cloud(options)
    server = Server(cloud)
    runner = web.AppRunner(server.build_app(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=_tls_context(options))
        await site.start()
        port = runner.addresses[0][1]
        url = f"{'https' if options.tls_cert else 'http'}://{options.host}:{port}"
        environment = {
            "OS_AUTH_URL": f"{url}/v3",
            "OS_USERNAME": user.name,
            "OS_PASSWORD": user.password,
            "OS_USER_DOMAIN_NAME": user.domain,
            "OS_PROJECT_NAME": project.name,
            "OS_REGION_NAME": project.region,
        }
        if options.ready_fd is None:
            _print_welcome(url, environment, cloud)
        else:
            loop.add_reader(sys.stdin.fileno(), stop.set)
            ready = {"url": url, "project_id": project.id, "environment": environment}
            with os.fdopen(options.ready_fd, "w") as pipe:
                json.dump(ready, pipe)
        await stop.wait()
    finally:
        server.faults.clear()
        await runner.cleanup()


def _tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _print_welcome(url: str, environment: dict[str, str], cloud: Cloud) -> None:
    lines = [
        f"The simulated cloud listens on {url} (control API: {url}/_sim/). Stop it with Ctrl-C.",
        *(f"AS group {group_id}" for group_id in cloud.groups),
        *(f"SMN topic {urn}" for urn in sorted(cloud.topics)),
        "",
        *(f"export {name}={value}" for name, value in environment.items()),
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments()))
