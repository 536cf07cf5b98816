"""What a start imports: the Kubernetes client has a thousand modules, and needs a dozen."""

import importlib.util
import json
import subprocess
import sys

#: Modules of our own, of kopf and of all that both import; a dozen more are no reason to worry, hundreds are.
MOST_MODULES = 1150


def test_a_start_imports_nothing_of_the_kubernetes_client_that_is_not_used() -> None:
    program = "import json, sys, lifecyclehook_operator.handlers; print(json.dumps(list(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules = set(json.loads(ran.stdout))
    typed = ("kubernetes.aio.client.api.", "kubernetes.aio.client.models.", "kubernetes.client.api.")
    assert [name for name in modules if name.startswith(typed)] == []
    assert modules.isdisjoint({"lifecyclehook_operator.kube.leaderelection", "httpcore"})
    assert len(modules) < MOST_MODULES


def test_what_httpcore_imports_at_each_lock_is_there() -> None:
    assert importlib.util.find_spec("sniffio") is not None


def test_what_a_start_imports_is_never_searched_for_garbage() -> None:
    program = """import gc
from lifecyclehook_operator import __main__, manager
manager.run = lambda options: print(gc.isenabled(), gc.get_freeze_count() > 50_000)
__main__.main(["run", "--all-namespaces"])"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["True", "True"]
