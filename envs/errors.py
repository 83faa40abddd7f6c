"""Every error that an environment's name or parameters can raise.

    EnvError
    ├── UnknownEnvironment (ValueError)   no environment of this name, or one that cannot be used
    ├── InvalidEnvParam (ValueError)      an unknown key, or a value of the wrong type or range
    ├── InvalidMarketData (ValueError)    bars that cannot be used, with file, row and column
    └── UnusableFactory (ValueError)      a user's own environment or trainer, or what makes it

A tree of its own because `envs` imports nothing of ours; who calls maps it to an exit code.
"""


class EnvError(Exception):
    """Base of every error of this package."""


class UnknownEnvironment(EnvError, ValueError):
    """No environment has this name, or it has one that cannot be trained here."""


class InvalidEnvParam(EnvError, ValueError):
    """A parameter does not exist, or its value has the wrong type or lies outside its range."""


class InvalidMarketData(EnvError, ValueError):
    """A market, its data file or what was asked of it cannot be used."""


class UnusableFactory(EnvError, ValueError):
    """A user's own environment or trainer cannot be imported, be made or be trained on."""
