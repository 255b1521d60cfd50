"""Become another program that the kernel kills together with its parent: ``python launcher.py PARENT PROGRAM [ARGUMENT]...``.

The parent-death signal survives ``execve``, so setting it here costs no ``preexec_fn`` (which is unsafe beside threads) and leaves no
process in between. Only the standard library's smallest parts are imported: this runs before every process of the test bed.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - replacing this process is the purpose; there is no shell in it


if __name__ == "__main__":
    main()
