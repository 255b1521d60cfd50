"""Free ports for servers that may be stopped and started again on the same one."""

import random
import socket
from pathlib import Path

_FIRST = 10_000
_ATTEMPTS = 200


def free_port() -> int:
    """Return a port on 127.0.0.1 that nothing listens on.

    It lies below the range from which the kernel serves outgoing connections, so that none of those takes it while a server restarts.
    Two processes may pick the same one; who comes second sees "address already in use" and asks again.
    """
    candidates = random.sample(range(_FIRST, _ephemeral_start()), _ATTEMPTS)
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of {_ATTEMPTS} ports is free")


def _ephemeral_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768
