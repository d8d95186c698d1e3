"""Every public exception.

::

    CuratorError
    ├── ConfigError               a configuration or session specification is wrong
    ├── MissingDependencyError    an optional package is needed and not installed
    ├── PoolError                 a pool cannot be read, or an id is not in it
    │   └── PoolChangedError      the data differs from when the session was opened
    ├── SessionError
    │   ├── UnknownSessionError   no session of that name
    │   ├── SessionMismatchError  a session of that name with another specification
    │   ├── RankStalledError      another rank does not report, and this one waits
    │   └── StepNotReportedError  waiting for a batch that your own report must unlock
    ├── FeedbackError             a report that does not fit its step
    ├── SnapshotError             published weights that do not fit the learner
    ├── FeatureError              features that do not fit the policy
    ├── ScoringError              a model failed while scoring candidates
    ├── StorageError              the ledger or a snapshot could not be written or read
    ├── ProtocolError             client and server speak different protocol versions
    ├── LimitError                more than a limit of the server's configuration
    ├── AuthenticationError       no token, or none that the server knows
    ├── PermissionDeniedError     the token does not allow this call
    └── ServiceError              anything else that went wrong on the server
        └── UnavailableError      the server cannot be reached

A message says what was given, what is allowed and what to do about it. The client
raises these very classes for errors that arise on the server; ``grpc.RpcError`` never
reaches the user.
"""

__all__ = [
    "AuthenticationError",
    "ConfigError",
    "CuratorError",
    "FeatureError",
    "FeedbackError",
    "LimitError",
    "MissingDependencyError",
    "PermissionDeniedError",
    "PoolChangedError",
    "PoolError",
    "ProtocolError",
    "RankStalledError",
    "ScoringError",
    "ServiceError",
    "SessionError",
    "SessionMismatchError",
    "SnapshotError",
    "StepNotReportedError",
    "StorageError",
    "UnavailableError",
    "UnknownSessionError",
]


class CuratorError(Exception):
    """Anything that batch-curator raises on purpose."""


class ConfigError(CuratorError, ValueError):
    """A configuration or a session specification is wrong."""


class MissingDependencyError(CuratorError, ImportError):
    """An optional package is needed and not installed."""


class PoolError(CuratorError):
    """A pool cannot be read, or an id is not in it."""


class PoolChangedError(PoolError):
    """The data differs from when the session was opened."""


class SessionError(CuratorError):
    """Something about a session, not about a single step of it."""


class UnknownSessionError(SessionError, LookupError):
    """No session of that name."""


class SessionMismatchError(SessionError):
    """A session of that name exists with another specification."""


class RankStalledError(SessionError):
    """Another rank has not reported a step for long, and keeps this one waiting."""


class StepNotReportedError(SessionError):
    """A batch is waited for that only the caller's own report can unlock."""


class FeedbackError(CuratorError, ValueError):
    """A report that does not fit its step."""


class SnapshotError(CuratorError, ValueError):
    """Published weights that do not fit the learner."""


class FeatureError(CuratorError, ValueError):
    """Features that do not fit the policy or the super-batch."""


class ScoringError(CuratorError):
    """A model failed while scoring candidates."""


class StorageError(CuratorError):
    """The ledger or a snapshot could not be written or read."""


class ProtocolError(CuratorError):
    """Client and server speak different versions of the protocol."""


class LimitError(CuratorError):
    """More than a limit of the server's configuration allows."""


class AuthenticationError(CuratorError):
    """The client has no token, or none that the server knows."""


class PermissionDeniedError(CuratorError):
    """The client's token does not allow this call."""


class ServiceError(CuratorError):
    """Anything else that went wrong on the server."""


class UnavailableError(ServiceError, ConnectionError):
    """The server cannot be reached."""
