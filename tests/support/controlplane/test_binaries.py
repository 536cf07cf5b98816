"""Where the binaries come from. No network: the published archive is served on loopback, Go is a script."""

import hashlib
import http.server
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import binaries
from tests.support.controlplane.binaries import BinariesNotFoundError, cache_key, find_or_make_binaries

NAMES = ("etcd", "kube-apiserver", "kubectl")
PINNED = binaries.pinned_version()
MINOR = binaries.minor_of(PINNED)
OTHER = binaries.OTHER_VERSIONS[3]
OTHER_MINOR = binaries.minor_of(OTHER)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no archive to be had, and no Go."""
    for name in ("KUBEBUILDER_ASSETS", "KUBERNETES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(binaries, "ARCHIVE_INDEX_URL", "http://127.0.0.1:1/index")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return binaries.cache_root() / cache_key()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a `go` in place that answers GOVERSION and Kubernetes' go.mod, and runs a shell line to build "$out"."""

    def install(build: str, version: str = "go99.1") -> None:
        path = tmp_path / "go"
        (tmp_path / "kubernetes.mod").write_text(KUBERNETES_GO_MOD)
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = env ]; then echo {version}; exit; fi\n'
            f'if [ "$1" = list ]; then echo {tmp_path}/kubernetes.mod; exit; fi\nmodule=$3\n'
            f'while [ "$1" != -o ]; do shift; done\nout=$2 package=$3\n{build}\n'
        )
        path.chmod(0o755)
        monkeypatch.setattr(shutil, "which", lambda _: str(path))

    return install


KUBERNETES_GO_MOD = """module k8s.io/kubernetes

go 1.22.0

require (
	github.com/google/uuid v1.6.0
	k8s.io/api v0.0.0
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
)
"""

BUILD = 'echo "$package" > "$out"; chmod +x "$out"'


def say_nothing(_: str) -> None: ...


def executables(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("from a test")
        (folder / name).chmod(0o755)
    return folder


def archive(names: tuple[str, ...] = NAMES) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in (*names, "../escape"):
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return content.getvalue()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Serves an index of releases, and the archive of each."""
    pages: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages[self.path])

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        base = f"http://127.0.0.1:{server.server_port}"

        def serve(*versions: str, content: bytes = archive(), digest: str | None = None) -> None:
            releases = {}
            for version in versions:
                file = f"envtest-{version}-{'-'.join(binaries.go_platform())}.tar.gz"
                pages[f"/{file}"] = content
                entry = {"hash": digest or hashlib.sha512(content).hexdigest(), "selfLink": f"{base}/{file}"}
                releases[version] = {file: entry}
            pages["/index"] = yaml.safe_dump({"releases": releases}).encode()
            monkeypatch.setattr(binaries, "ARCHIVE_INDEX_URL", f"{base}/index")

        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serve
        server.shutdown()
        thread.join()


class TestOrder:
    def test_kubebuilder_assets_come_first(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
    ) -> None:
        executables(cache)
        assets = executables(tmp_path / "assets")
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
        assert find_or_make_binaries(lines.append).folder == assets
        assert lines == []

    def test_incomplete_kubebuilder_assets_are_passed_over_in_one_line(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
    ) -> None:
        executables(cache)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(executables(tmp_path / "assets", ("etcd", "kubectl"))))
        assert find_or_make_binaries(lines.append).folder == cache
        assert len(lines) == 1
        assert "no kube-apiserver in" in lines[0]

    def test_the_cache_is_used_silently(self, cache: Path, lines: list[str]) -> None:
        executables(cache)
        assert find_or_make_binaries(lines.append).folder == cache
        assert lines == []

    def test_the_archive_comes_before_a_build(
        self, cache: Path, publish: Callable[..., None], go: Callable[..., None], lines: list[str]
    ) -> None:
        go("exit 1")
        publish(f"v{MINOR}.0")
        assert find_or_make_binaries(lines.append).folder == cache
        assert (cache / "etcd").read_text() == "etcd"

    def test_the_build_comes_last_and_says_how_it_goes(
        self, cache: Path, go: Callable[..., None], lines: list[str]
    ) -> None:
        go(BUILD)
        assert find_or_make_binaries(lines.append).missing() == []
        assert (cache / "kubectl").read_text() == "k8s.io/kubernetes/cmd/kubectl\n"
        assert lines[0].startswith("The published archive can't be used")
        assert [line.split(" (")[0] for line in lines[1::2]][:3] == [f"Building {name}" for name in NAMES]


class TestArchive:
    def test_the_newest_final_release_of_our_minor_version_is_taken(
        self, publish: Callable[..., None], lines: list[str]
    ) -> None:
        publish(f"v{MINOR}.9", f"v{MINOR}.10", f"v{MINOR}.11-rc.0", "v1.2.99")
        find_or_make_binaries(lines.append)
        assert f"v{MINOR}.10 " in lines[0] + " "

    def test_nothing_but_the_three_binaries_is_unpacked(
        self, cache: Path, publish: Callable[..., None], lines: list[str]
    ) -> None:
        publish(f"v{MINOR}.0")
        find_or_make_binaries(lines.append)
        assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)

    @pytest.mark.parametrize(
        ("version", "served", "reason"),
        [
            (f"v{MINOR}.0", {"digest": "0" * 128}, "its SHA-512 is not the one in the index"),
            (f"v{MINOR}.0", {"content": archive(("etcd", "kubectl"))}, "it lacks kube-apiserver"),
            (f"v{MINOR}.0", {"content": b"not an archive"}, "file could not be opened"),
            ("v1.2.3", {}, f"none for Kubernetes {MINOR}"),
        ],
    )
    def test_an_archive_that_is_not_right_is_not_used(
        self, publish: Callable[..., None], lines: list[str], version: str, served: dict[str, Any], reason: str
    ) -> None:
        publish(version, **served)
        with pytest.raises(BinariesNotFoundError, match="no Go here"):
            find_or_make_binaries(lines.append)
        assert reason in lines[-1]

    @pytest.mark.parametrize("index", ["", "releases: [1]", "{", "releases: {v1: {}}"])
    def test_an_index_that_makes_no_sense_closes_this_way_only(self, index: str) -> None:
        with pytest.raises(binaries.UnavailableError):
            binaries.choose_archive(index)


class TestAnotherVersion:
    @pytest.fixture(autouse=True)
    def wanted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES", OTHER_MINOR)

    def test_the_published_archive_of_its_minor_version_is_taken(
        self, publish: Callable[..., None], lines: list[str]
    ) -> None:
        publish(f"v{MINOR}.0", f"v{OTHER_MINOR}.2")
        assert find_or_make_binaries(lines.append).folder.name.startswith(f"{OTHER}-")
        assert f"v{OTHER_MINOR}.2 " in lines[0] + " "

    def test_it_is_built_from_its_own_module_beside_the_pinned_etcd(
        self, go: Callable[..., None], lines: list[str]
    ) -> None:
        go('cp "$module/go.mod" "$out"; chmod +x "$out"')
        made = find_or_make_binaries(lines.append)
        assert made.etcd.read_bytes() == (binaries.MODULE_DIR / "go.mod").read_bytes()
        module = made.kube_apiserver.read_text()
        assert made.kubectl.read_text() == module
        assert "\tgithub.com/google/uuid v1.6.0\n" in module
        assert f"\tk8s.io/api => k8s.io/api v0{OTHER.removeprefix('1')}\n" in module
        assert module.endswith(f"\nrequire k8s.io/kubernetes v{OTHER}\n")

    def test_a_module_that_cannot_be_had_is_named(
        self, cache: Path, go: Callable[..., None], tmp_path: Path, lines: list[str]
    ) -> None:
        go(BUILD)
        script = (tmp_path / "go").read_text()
        (tmp_path / "go").write_text(script.replace("then echo /", "then echo no route >&2; exit 1; echo /"))
        with pytest.raises(BinariesNotFoundError, match=rf"can't get k8s\.io/kubernetes@v{OTHER}: no route"):
            find_or_make_binaries(lines.append)
        assert not list(cache.parent.glob("*/"))

    @pytest.mark.parametrize("wanted", ["1.27", "1.31.14", "v1.31", "new"])
    def test_an_unknown_one_is_refused_with_what_is_possible(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
    ) -> None:
        monkeypatch.setenv("KUBERNETES", wanted)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(executables(tmp_path / "assets")))
        expected = (
            rf"KUBERNETES={re.escape(wanted)} can't be had: it may be 1\.28, 1\.29, .*{MINOR}.*; {MINOR} by default"
        )
        with pytest.raises(BinariesNotFoundError, match=expected):
            find_or_make_binaries(say_nothing)

    @pytest.mark.parametrize(("said", "is_taken"), [(f"v{OTHER_MINOR}.0", True), (f"v{MINOR}.0", False)])
    def test_kubebuilder_assets_come_first_only_if_they_are_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], said: str, is_taken: bool
    ) -> None:
        assets = executables(tmp_path / "assets")
        (assets / "kube-apiserver").write_text(f"#!/bin/sh\necho Kubernetes {said}\n")
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
        cache = executables(binaries.cache_root() / cache_key())
        assert find_or_make_binaries(lines.append).folder == (assets if is_taken else cache)
        passed_over = f"KUBEBUILDER_ASSETS is passed over: no Kubernetes {OTHER_MINOR} in {assets}"
        assert lines == ([] if is_taken else [passed_over])

    def test_each_has_a_cache_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert cache_key().startswith(f"{OTHER}-{'-'.join(binaries.go_platform())}-")
        monkeypatch.delenv("KUBERNETES")
        keys = [cache_key()]
        for wanted in ("", MINOR):
            monkeypatch.setenv("KUBERNETES", wanted)
            keys.append(cache_key())
        assert len(set(keys)) == 1

    def test_none_is_known_twice(self) -> None:
        minors = [binaries.minor_of(version) for version in (*binaries.OTHER_VERSIONS, PINNED)]
        assert len(set(minors)) == len(minors)


class TestCacheKey:
    def test_it_names_version_and_platform(self) -> None:
        assert cache_key().startswith(f"{PINNED}-{'-'.join(binaries.go_platform())}-")

    @pytest.mark.parametrize("changed", ["go.mod", "go.sum"])
    def test_it_follows_the_content_of_go_mod_and_go_sum(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
    ) -> None:
        for name in ("go.mod", "go.sum"):
            (tmp_path / name).write_bytes((binaries.MODULE_DIR / name).read_bytes())
        before = cache_key()
        monkeypatch.setattr(binaries, "MODULE_DIR", tmp_path)
        assert cache_key() == before
        with (tmp_path / changed).open("a") as file:
            file.write("// changed\n")
        assert cache_key() != before


class TestCacheIsWholeOrAbsent:
    def test_a_failed_build_leaves_nothing_but_its_message(
        self, cache: Path, go: Callable[..., None], lines: list[str]
    ) -> None:
        go('[ "${package##*/}" = kubectl ] && { echo no space left >&2; exit 1; }; ' + BUILD)
        with pytest.raises(BinariesNotFoundError, match=r"building kubectl failed:\nno space left"):
            find_or_make_binaries(lines.append)
        assert [path.name for path in cache.parent.iterdir()] == [f"{cache.name}.lock"]

    def test_ctrl_c_stops_the_build_and_leaves_nothing(
        self, cache: Path, go: Callable[..., None], tmp_path: Path
    ) -> None:
        go(f"echo $$ > {tmp_path / 'pid'}; exec sleep 60")
        deadline = time.monotonic() + 10

        def interrupt(_: str) -> None:
            if (tmp_path / "pid").exists() or time.monotonic() > deadline:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(binaries, "HEARTBEAT_SECONDS", 0.01)
            with pytest.raises(KeyboardInterrupt):
                find_or_make_binaries(interrupt)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
        assert [path.name for path in cache.parent.iterdir()] == [f"{cache.name}.lock"]

    def test_what_a_killed_process_left_is_replaced(
        self, cache: Path, go: Callable[..., None], lines: list[str]
    ) -> None:
        executables(cache, ("etcd",))
        leftover = executables(cache.with_name(f"{cache.name}.killed"), ("etcd",))
        go(BUILD)
        assert find_or_make_binaries(lines.append).missing() == []
        assert not leftover.exists()

    def test_two_processes_at_once_build_once(self, cache: Path, go: Callable[..., None], tmp_path: Path) -> None:
        go(f"echo $package >> {tmp_path / 'built'}; " + BUILD)
        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=find_or_make_binaries, args=(say_nothing,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
            process.close()
        assert len((tmp_path / "built").read_text().splitlines()) == len(NAMES)


class TestMessages:
    def test_no_go(self, lines: list[str]) -> None:
        with pytest.raises(BinariesNotFoundError, match=r"no Go here: install Go \d+\.\d+.* or set KUBEBUILDER_ASSETS"):
            find_or_make_binaries(lines.append)

    def test_an_old_go(self, go: Callable[..., None], lines: list[str]) -> None:
        go(BUILD, version="go1.25.9")
        with pytest.raises(BinariesNotFoundError, match=r"this is Go 1\.25\.9\): install Go \d+\.\d+"):
            find_or_make_binaries(lines.append)

    def test_long_steps_say_that_they_go_on(
        self, go: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(binaries, "HEARTBEAT_SECONDS", 0.01)
        said = tmp_path / "said"

        def note(line: str) -> None:
            if line.startswith("  ... building etcd ("):
                said.touch()

        go(f"until [ -e {said} ]; do sleep 0.01; done; " + BUILD)
        assert find_or_make_binaries(note).missing() == []

    def test_the_command_ends_with_the_message_alone(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tests.support.controlplane", "build"]
        # No proxy can be reached either, so no archive.
        unreachable = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:1")
        environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), **unreachable}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 1
        assert ended.stderr.startswith("The control plane can't be built")
        assert len(ended.stderr.splitlines()) == 1


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "STOP_SECONDS", 0.1)
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        binaries.stop_group(process)
    assert process.returncode == -signal.SIGKILL
