"""``make demo``: the main job of the operator on real parts, shown step by step and checked.

Read in this order: ``story`` (what happens), ``place`` (the cluster it happens in), ``parts`` (the processes), ``outsider`` (a subscriber
who knows nothing of the operator), ``following`` (the Runs, live), ``verdict`` (what must have happened), ``kept`` (``KEEP=1``).
"""


class DemoError(RuntimeError):
    """Something did not happen; the message says what, and why if that is known."""
