"""Where etcd, kube-apiserver and kubectl come from.

In this order: the folder named by KUBEBUILDER_ASSETS, our cache, the archive that the kubebuilder project publishes
for the same Kubernetes minor version, a build from Go modules. The go.mod beside this file decides the versions. Where
KUBERNETES names another minor version, etcd still comes from there, and the rest from a module made of Kubernetes' own.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

MODULE_DIR = Path(__file__).parent
ARCHIVE_INDEX_URL = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
ARCHIVE_TIMEOUT = httpx.Timeout(60, connect=5)
HEARTBEAT_SECONDS = 15
STEP_DEADLINE_SECONDS = 3600
STOP_SECONDS = 5

#: Binary, its Go package, and how long it takes to build on two cores with the modules downloaded.
GO_PACKAGES = {
    "etcd": ("go.etcd.io/etcd/server/v3", "half a minute"),
    "kube-apiserver": ("k8s.io/kubernetes/cmd/kube-apiserver", "two to three minutes"),
    "kubectl": ("k8s.io/kubernetes/cmd/kubectl", "a quarter of a minute"),
}
#: The newest release that can be had of each minor version, beside the one that go.mod pins.
OTHER_VERSIONS = ("1.28.15", "1.29.15", "1.30.14", "1.31.14", "1.32.13", "1.33.13", "1.34.10", "1.35.8", "1.37.2")
GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Say = Callable[[str], None]


class BinariesNotFoundError(Exception):
    """None of the ways led to the three binaries; the message says what to install."""


class UnavailableError(Exception):
    """One way to the binaries is closed; the next one may be open."""


@dataclass(frozen=True)
class Binaries:
    """A folder that holds the three executables."""

    folder: Path

    @property
    def etcd(self) -> Path:
        return self.folder / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        return self.folder / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"

    @property
    def kubernetes(self) -> tuple[int, ...]:
        """Major and minor version that the API server says it has."""
        asked = subprocess.run([self.kube_apiserver, "--version"], capture_output=True, text=True, check=False)
        return tuple(numbers(asked.stdout))

    def missing(self) -> list[str]:
        return [name for name in GO_PACKAGES if not os.access(self.folder / name, os.X_OK)]


def print_line(line: str) -> None:
    print(line, flush=True)


def find_or_make_binaries(say: Say = print_line) -> Binaries:
    """Return the three binaries, made and cached first if need be; `say` gets one line for each thing that happens."""
    key = cache_key()
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        binaries = Binaries(Path(assets))
        if missing := binaries.missing():
            say(f"KUBEBUILDER_ASSETS is passed over: no {', '.join(missing)} in {assets}")
        elif os.environ.get("KUBERNETES") and binaries.kubernetes != tuple(numbers(kubernetes_version())):
            say(f"KUBEBUILDER_ASSETS is passed over: no Kubernetes {os.environ['KUBERNETES']} in {assets}")
        else:
            return binaries
    binaries = Binaries(cache_root() / key)
    if not binaries.missing():
        return binaries
    with exclusive(binaries.folder, say):
        # Another process may have made them while we waited for the lock.
        if binaries.missing():
            make_binaries(binaries.folder, say)
    return binaries


def make_binaries(folder: Path, say: Say) -> None:
    """Fill `folder` all at once or not at all; the caller holds its lock."""
    remove_leftovers(folder)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        try:
            download_archive(partial, say)
        except UnavailableError as reason:
            say(f"The published archive can't be used ({reason}); building from the Go modules instead")
            build_from_modules(partial, say)
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"etcd, kube-apiserver and kubectl are in {folder}")


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left behind: the lock is ours, so no other process uses it."""
    if folder.exists():
        shutil.rmtree(folder)
    for leftover in folder.parent.glob(f"{folder.name}.*/"):
        shutil.rmtree(leftover)


# --- versions and the cache ---------------------------------------------------------------------------------------


def go_mod_version(pattern: str) -> str:
    """The version that `pattern`, a regular expression, is followed by in go.mod."""
    found = re.search(rf"^\s*{pattern} v?(\d+(?:\.\d+)+)", (MODULE_DIR / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BinariesNotFoundError(f"go.mod has no line for {pattern}")
    return found[1]


def pinned_version() -> str:
    return go_mod_version("(?:require )?k8s[.]io/kubernetes")


def kubernetes_version() -> str:
    """The release of the minor version that KUBERNETES names; unless that is set, the one that go.mod pins."""
    pinned = pinned_version()
    wanted = os.environ.get("KUBERNETES")
    if not wanted:
        return pinned
    releases = {minor_of(version): version for version in (*OTHER_VERSIONS, pinned)}
    if wanted not in releases:
        known = ", ".join(sorted(releases, key=numbers))
        raise BinariesNotFoundError(
            f"KUBERNETES={wanted} can't be had: it may be {known}; {minor_of(pinned)} by default."
        )
    return releases[wanted]


def minor_of(version: str) -> str:
    return version.rpartition(".")[0]


def go_platform() -> tuple[str, str]:
    machine = platform.machine().lower()
    return platform.system().lower(), GO_ARCHITECTURES.get(machine, machine)


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lifecyclehook-operator" / "controlplane"


def cache_key() -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE_DIR / name).read_bytes())
    return "-".join((kubernetes_version(), *go_platform(), digest.hexdigest()[:16]))


@contextlib.contextmanager
def exclusive(folder: Path, say: Say) -> Iterator[None]:
    """Hold the lock that belongs to `folder`; the kernel frees it when its holder dies, however it dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        for _ in heartbeats("waiting for another process that makes the binaries", say):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        yield


def heartbeats(what: str, say: Say, poll_seconds: float = 0.2) -> Iterator[None]:
    """Yield at short intervals until the deadline, saying now and then that `what` still goes on."""
    started = next_line = time.monotonic()
    while (now := time.monotonic()) < started + STEP_DEADLINE_SECONDS:
        yield
        if now >= next_line + HEARTBEAT_SECONDS:
            say(f"  ... {what} ({now - started:.0f} s)")
            next_line = now
        time.sleep(poll_seconds)
    raise BinariesNotFoundError(f"gave up after {STEP_DEADLINE_SECONDS} s: {what}")


# --- the published archive ----------------------------------------------------------------------------------------


def download_archive(folder: Path, say: Say) -> None:
    """Unpack the newest published archive of our Kubernetes minor version, its SHA-512 checked, into `folder`."""
    try:
        with httpx.Client(timeout=ARCHIVE_TIMEOUT, follow_redirects=True) as client:
            index = client.get(ARCHIVE_INDEX_URL).raise_for_status().text
            version, url, expected = choose_archive(index)
            say(f"Downloading etcd, kube-apiserver and kubectl {version} as published for this platform")
            with tempfile.TemporaryFile() as archive:
                digest = hashlib.sha512()
                with client.stream("GET", url) as answer:
                    chunks = answer.raise_for_status().iter_bytes()
                    for _, chunk in zip(heartbeats("downloading", say, poll_seconds=0), chunks, strict=False):
                        digest.update(chunk)
                        archive.write(chunk)
                if digest.hexdigest() != expected:
                    raise UnavailableError("its SHA-512 is not the one in the index")
                archive.seek(0)
                with tarfile.open(fileobj=archive) as tar:
                    unpack(tar, folder)
    except (httpx.HTTPError, httpx.InvalidURL, tarfile.TarError, EOFError, OSError, BinariesNotFoundError) as error:
        raise UnavailableError(str(error) or type(error).__name__) from error


def choose_archive(index: str) -> tuple[str, str, str]:
    """Version, URL and SHA-512 of the newest final release of our minor version in `index`."""
    minor = minor_of(kubernetes_version())
    suffix = "-".join(go_platform())
    try:
        releases = {
            int(version.removeprefix(f"v{minor}.")): (version, files[f"envtest-{version}-{suffix}.tar.gz"])
            for version, files in yaml.safe_load(index)["releases"].items()
            if re.fullmatch(rf"v{re.escape(minor)}\.\d+", version) and f"envtest-{version}-{suffix}.tar.gz" in files
        }
        version, file = releases[max(releases)]
        return version, file["selfLink"], file["hash"]
    except ValueError as error:
        raise UnavailableError(f"none for Kubernetes {minor} on {suffix}") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UnavailableError("its index can't be read") from error


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Take the three executables out of `archive` by their base names, and nothing else."""
    for member in archive:
        name = member.name.rpartition("/")[2]
        if name in GO_PACKAGES and (content := archive.extractfile(member)) is not None:
            with (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file)
            (folder / name).chmod(0o755)
    if missing := Binaries(folder).missing():
        raise UnavailableError(f"it lacks {', '.join(missing)}")


# --- the build ----------------------------------------------------------------------------------------------------


def build_from_modules(folder: Path, say: Say) -> None:
    """Build the three binaries into `folder`, one after the other, with a line of progress every few seconds."""
    go = find_go()
    version = kubernetes_version()
    module = MODULE_DIR if version == pinned_version() else make_module(go, version, folder / "module")
    for name, (package, expected) in GO_PACKAGES.items():
        say(f"Building {name} (about {expected} on two cores, and the download of its modules the first time)")
        started = time.monotonic()
        # The etcd of go.mod serves every version.
        command = build_command(go, package, folder / name, MODULE_DIR if name == "etcd" else module)
        run_build(command, f"building {name}", say)
        say(f"Built {name} in {time.monotonic() - started:.0f} s")


def make_module(go: str, version: str, folder: Path) -> Path:
    """Make a Go module in `folder` that has Kubernetes in a version, with the dependencies of its release.

    Its go.sum comes with the build, for which Go asks the checksum database about each of them.
    """
    folder.mkdir()
    module = f"k8s.io/kubernetes@v{version}"
    asked = subprocess.run(
        [go, "list", "-m", "-f", "{{.GoMod}}", module],
        cwd=folder,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise BinariesNotFoundError(f"Go can't get {module}: {asked.stderr.strip()}")
    text = Path(asked.stdout.strip()).read_text()
    text = re.sub(r"^module .*", "module controlplane", text, flags=re.MULTILINE)
    # The staging modules are in no release of this module; each is published under the matching v0.x.
    text = re.sub(r"=> \./staging/src/(\S+)", rf"=> \1 v0.{version.partition('.')[2]}", text)
    (folder / "go.mod").write_text(f"{text}\nrequire k8s.io/kubernetes v{version}\n")
    return folder


def find_go() -> str:
    """The `go` command; BinariesNotFoundError where there is none that can build our module."""
    needed = go_mod_version("go")
    remedy = (
        f"install Go {needed} or later (and have it on PATH), or set KUBEBUILDER_ASSETS to a folder with "
        f"{', '.join(GO_PACKAGES)} of Kubernetes {kubernetes_version()}"
    )
    go = shutil.which("go")
    if go is None:
        raise BinariesNotFoundError(f"The control plane can't be built, there is no Go here: {remedy}.")
    # Asked in the module's folder, Go may bring itself up to the version that go.mod names.
    asked = subprocess.run(
        [go, "env", "GOVERSION"], cwd=MODULE_DIR, env=go_environment(), capture_output=True, text=True, check=False
    )
    version = asked.stdout.strip().removeprefix("go")
    if asked.returncode != 0 or numbers(version) < numbers(needed):
        reason = asked.stderr.strip() or f"this is Go {version}"
        raise BinariesNotFoundError(f"The control plane can't be built with {go} ({reason}): {remedy}.")
    return go


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def go_environment() -> dict[str, str]:
    return os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}


def build_command(go: str, package: str, output: Path, module: Path) -> list[str]:
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    linker = " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={it}" for name, it in stamps.items())])
    return [
        go,
        "build",
        "-C",
        str(module),
        "-trimpath",
        "-mod=readonly" if module == MODULE_DIR else "-mod=mod",
        "-buildvcs=false",
        "-ldflags",
        linker,
        "-o",
        str(output),
        package,
    ]


def run_build(command: list[str], what: str, say: Say) -> None:
    """Run `command`, and take it and its children down with us."""
    with tempfile.TemporaryFile("w+") as output:
        build = subprocess.Popen(command, env=go_environment(), stdout=output, stderr=output, process_group=0)
        try:
            for _ in heartbeats(what, say):
                if build.poll() is not None:
                    break
        finally:
            stop_group(build)
        if build.returncode != 0:
            output.seek(0)
            tail = "".join(output.readlines()[-20:])
            raise BinariesNotFoundError(f"{what} failed:\n{tail}")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End the process group that `process` leads, if it still runs."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
