"""Every error that storage raises.

    StorageError
    ├── NotADatabase (ValueError)        the file is something else
    ├── InvalidStorageUrl (ValueError)   the address is not of a database that we can use
    ├── NotWritable (OSError)            the file or its folder cannot be written
    ├── StudyNotFound (LookupError)      no such file, database or study
    ├── InvalidProfile (ValueError)      a profile is missing, malformed or of a newer schema
    ├── InvalidTable (ValueError)        a trials.csv has other columns than ours
    ├── StudyExists (ValueError)         a study of that name is there already
    ├── NewerSchema                      written by a newer Optuna or a newer tuner
    ├── OlderSchema                      written by an older Optuna; can be upgraded
    └── StorageUnavailable (OSError)     locked for too long, disk full, server gone
        └── ProxyUnavailable             the gRPC proxy, or the database behind it

A message is one line: what is required, "but got" what, and the remedy; it never holds a password.
The command line gives the first six the exit code 2, the next three 4 and the last 8.
"""


class StorageError(Exception):
    """Base of every error of this package."""


class NotADatabase(StorageError, ValueError):
    """The file exists and is not an SQLite database, or is a damaged one."""


class InvalidStorageUrl(StorageError, ValueError):
    """The address is malformed, or of a kind of database that cannot hold a study."""


class NotWritable(StorageError, OSError):
    """The database file or its folder may not be written."""


class StudyNotFound(StorageError, LookupError):
    """The database file, our tables in it, or the study do not exist."""


class InvalidProfile(StorageError, ValueError):
    """A profile cannot be read as one, or cannot be written as one."""


class InvalidTable(StorageError, ValueError):
    """A `trials.csv` was written with other columns."""


class AlreadyLed(StorageError):
    """Another process leads the study, perhaps on another machine."""


class StudyExists(StorageError, ValueError):
    """A study of that name is in the database already."""


class NewerSchema(StorageError):
    """The database was written by a newer version than is installed."""


class OlderSchema(StorageError):
    """The database was written by an older Optuna and needs an upgrade first."""


class StorageUnavailable(StorageError, OSError):
    """The database or the disk did not answer, or stayed locked for too long."""


class ProxyUnavailable(StorageUnavailable):
    """Optuna's gRPC proxy, or the database behind it, did not answer.

    `fault` says in few words what happened if it may pass by itself, `None` if it cannot.
    """

    def __init__(self, message: str, *, fault: str | None) -> None:
        super().__init__(message)
        self.fault = fault
