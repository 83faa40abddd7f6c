"""Every error that reaches a person.

    TunerError                     exit 1
    ├── UsageError (ValueError)    exit 2   a flag, key, value or file is wrong
    │   ├── DeviceUnavailable               the device asked for cannot be read (tuner.devices)
    │   └── NotBegun                exit 2   the study has only a name yet
    ├── NothingFeasible            exit 3   the study ended and no config of the space works
    ├── Refused                    exit 4   the study exists, or has other hardware or space
    │   └── OtherHardware                   the device is another one (tuner.hardware)
    └── ExportRefused              exit 7   feasible configs exist, none may become a profile

A message is one line: what is required, "but got" what, and the remedy. The failure of a trial is
a value (`tuner.outcome`), never one of these; faults of the database are `storage.errors`, of the
environments `envs.errors`. Exit codes stand beside the classes because a
reader who looks for one wants the other.
"""


class TunerError(Exception):
    """Base of every error of this package; an exit code of 1 unless a subclass says otherwise."""

    exit_code = 1


class UsageError(TunerError, ValueError):
    """A flag, key, value or file is wrong; nothing has been run."""

    exit_code = 2


class NotBegun(UsageError):
    """A study has a name and nothing else: it is being started, or was killed before it began."""


class NothingFeasible(TunerError):
    """The study finished and no config of its space can run on this machine."""

    exit_code = 3


class Refused(TunerError):
    """A study exists already, or was made for another space, workload, hardware or schema."""

    exit_code = 4


class ExportRefused(TunerError):
    """Feasible configs exist, but none may be written as a profile."""

    exit_code = 7
