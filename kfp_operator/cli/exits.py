"""Exit codes: what a script can tell from them. The same for every command, and shown in the help of those that scripts use."""

from enum import IntEnum

from kfp_operator.errors import BusError, ClusterError, ConfigurationError, KfpOperatorError


class ExitCode(IntEnum):
    """What a command ended with."""

    OK = 0
    FAILED = 1
    """What was asked for came out badly: the run did not succeed, a check failed."""
    USAGE = 2
    """Flags, settings or files that cannot be used."""
    TIMEOUT = 3
    """It did not happen in time; it may yet."""
    UNAVAILABLE = 4
    """The API server or NATS did not answer, or refused."""
    DEFECT = 70
    """An error of this program: EX_SOFTWARE of sysexits.h."""
    INTERRUPTED = 130
    """Ctrl-C, where it is not the usual end."""


def exit_code(error: KfpOperatorError) -> ExitCode:
    """The exit code for an error that ended a command."""
    match error:
        case ConfigurationError():
            return ExitCode.USAGE
        case ClusterError() | BusError():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.FAILED
