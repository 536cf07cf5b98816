"""`guard.py PARENT-PID COMMAND...`: become COMMAND, and be killed by the kernel when the parent dies (Linux only).

A program of its own, for nothing but exec is safe between fork and exec where the parent has threads. The kernel
looks at the thread that started us, so that should be a thread that lives on.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.execv(command[0], command)  # noqa: S606  # there is no shell to be had from exec
