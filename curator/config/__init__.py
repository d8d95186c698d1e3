"""Configuration: what a server serves and what a session is.

Plain frozen dataclasses, which Python code builds directly and :func:`load_config`
reads from TOML. Every error names the key, what was given and what is allowed.
"""

from curator.config._extensions import load_extensions
from curator.config._load import (
    batches_to_table,
    check_references,
    load_config,
    parse_batches,
    parse_config,
    parse_policy,
    parse_sampler,
    parse_session,
    policy_to_table,
    sampler_to_table,
    session_to_table,
)
from curator.config._one_off import one_off_config
from curator.config._ray import RaySpec
from curator.config._security import (
    Permission,
    TlsSpec,
    TokenSpec,
    check_key_pair,
    check_unix_path,
    is_local,
)
from curator.config._server import ServerSpec
from curator.config._specs import (
    MODEL_OUTPUTS,
    Config,
    ModelSpec,
    PoolSpec,
    SessionSpec,
    Weighting,
    check_session_name,
    did_you_mean,
)

__all__ = [
    "MODEL_OUTPUTS",
    "Config",
    "ModelSpec",
    "Permission",
    "PoolSpec",
    "RaySpec",
    "ServerSpec",
    "SessionSpec",
    "TlsSpec",
    "TokenSpec",
    "Weighting",
    "batches_to_table",
    "check_key_pair",
    "check_references",
    "check_session_name",
    "check_unix_path",
    "did_you_mean",
    "is_local",
    "load_config",
    "load_extensions",
    "one_off_config",
    "parse_batches",
    "parse_config",
    "parse_policy",
    "parse_sampler",
    "parse_session",
    "policy_to_table",
    "sampler_to_table",
    "session_to_table",
]
