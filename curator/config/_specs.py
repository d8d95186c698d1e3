"""The specifications, one frozen dataclass per component.

Types are checked where a specification enters (TOML, or the wire); what is checked here
is what the type cannot say. Each ``ValueError`` becomes a :class:`ConfigError` that
names the table.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from curator.config._ray import RaySpec
from curator.config._server import ServerSpec
from curator.errors import ConfigError
from curator.policies import Policy, RememberingPolicy, Uniform
from curator.samplers import Sampler
from curator.samplers import Uniform as UniformSampler

__all__ = [
    "Config",
    "ModelSpec",
    "PoolSpec",
    "SessionSpec",
    "Weighting",
    "check_session_name",
    "did_you_mean",
]

Weighting: TypeAlias = Literal["sum", "mean"]
"""What a sampler's weights preserve: over an epoch, the weighted sum of the gradients
(InfoBatch; a step's mean gradient grows as fewer examples are kept), or their mean."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The keys that a kind of model needs, and those that it may have.
_MODULE_KEYS = ("args", "weights", "device", "dtype", "micro_batch_size")
_MODEL_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "two_tower": (("factory", "columns"), _MODULE_KEYS),
    "classifier": (("factory", "columns", "label"), _MODULE_KEYS),
    "causal_lm": (("factory", "columns", "tokens"), ("mask", *_MODULE_KEYS)),
    "table": (("path",), ("model",)),
}
# What a kind of model computes per example; of a table its file says it.
MODEL_OUTPUTS = {
    "two_tower": frozenset({"embeddings"}),
    "classifier": frozenset({"loss", "grad_norm", "entropy"}),
    "causal_lm": frozenset(
        {"loss", "perplexity", "entropy", "nuclear_norm", "projection", "num_tokens"}
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """A ``[pools.NAME]`` table.

    Attributes:
        format: What the files are, or ``virtual`` (ids and no data).
        path: A file, a folder or a glob; a URI (``s3://bucket/folder``) for another
            file system.
        num_examples: Size of a virtual pool.
        cache_bytes: How much decoded Parquet is kept in memory.
    """

    format: Literal[
        "arrow",
        "csv",
        "huggingface",
        "jsonl",
        "lance",
        "mds",
        "parquet",
        "virtual",
        "webdataset",
    ]
    path: str | None = None
    num_examples: int | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.format == "virtual":
            if self.num_examples is None or self.num_examples < 1:
                msg = (
                    "num_examples: a virtual pool needs it, at least 1; "
                    f"got {self.num_examples}"
                )
                raise ValueError(msg)
            if self.path is not None:
                msg = f"path: a virtual pool has no data; got {self.path!r}"
                raise ValueError(msg)
        elif self.path is None:
            msg = f"path: a pool of format {self.format!r} needs one"
            raise ValueError(msg)
        elif self.num_examples is not None:
            msg = "num_examples: only for format 'virtual'; files say it themselves"
            raise ValueError(msg)
        if self.cache_bytes is not None and (
            self.format != "parquet" or self.cache_bytes < 0
        ):
            msg = "cache_bytes: at least 0, and only for format 'parquet'"
            raise ValueError(msg)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A ``[models.NAME]`` table; see ``docs/models.md`` for the factory's contract.

    Attributes:
        kind: What it computes: ``two_tower`` embeddings, ``classifier`` and
            ``causal_lm`` losses and more; ``table`` has what another one computed.
        factory: Import path of a function, ``"package.module:function"``.
        args: Its keyword arguments.
        weights: A safetensors file; without one the factory's own initial weights.
        device: A torch device: ``cpu``, ``cuda``, ``cuda:1`` ...
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        micro_batch_size: How many examples are scored at once.
        columns: Columns of the pool that the module reads.
        label: Column of the class index, for a ``classifier``.
        tokens: Column of the token ids, for a ``causal_lm``.
        mask: Column that says which tokens are supervised; all of them by default.
        path: The Parquet file of a ``table``, or the folder that ``curator score``
            wrote.
        model: Name of the model that a ``table`` stands for, which is checked against
            what ``curator score`` has written down, and not loaded.
    """

    kind: Literal["two_tower", "classifier", "causal_lm", "table"] = "two_tower"
    factory: str | None = None
    columns: list[str] = dataclasses.field(default_factory=list[str])
    args: dict[str, object] = dataclasses.field(default_factory=dict[str, object])
    weights: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    micro_batch_size: int = 256
    label: str | None = None
    tokens: str | None = None
    mask: str | None = None
    path: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        required, optional = _MODEL_KEYS[self.kind]
        for key in required:
            if not getattr(self, key):
                msg = f"{key}: missing; a model of kind {self.kind!r} needs it"
                raise ValueError(msg)
        for field in dataclasses.fields(self):
            # A key that is left out is falsy, or what the default says.
            value = getattr(self, field.name)
            is_given = bool(value) and value != field.default
            if is_given and field.name not in {"kind", *required, *optional}:
                msg = (
                    f"{field.name}: not for a model of kind {self.kind!r}, which takes "
                    f"{', '.join([*required, *optional])}; got {value!r}"
                )
                raise ValueError(msg)
        if self.factory is not None:
            module, colon, function = self.factory.partition(":")
            if not (module and colon and function):
                msg = (
                    f"factory: expected 'package.module:function'; got {self.factory!r}"
                )
                raise ValueError(msg)
        if self.micro_batch_size < 1:
            msg = f"micro_batch_size: at least 1; got {self.micro_batch_size}"
            raise ValueError(msg)

    @property
    def outputs(self) -> frozenset[str] | None:
        """What its kind computes; None for a table, whose file says it."""
        return MODEL_OUTPUTS.get(self.kind)

    @property
    def reads(self) -> dict[str, list[str]]:
        """The columns of the pool that it needs, by the key that names them."""
        named = {"label": self.label, "tokens": self.tokens, "mask": self.mask}
        return {
            "columns": self.columns,
            **{key: [name] for key, name in named.items() if name is not None},
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SessionSpec:
    """What a session is: pool, sampler, policy, models and seed; fixed when opened.

    Attributes:
        pool: Name of a pool.
        batch_size: How many examples a step trains on (K), over all ranks.
        super_batch_size: How many candidates a step has (B); the batch size by default.
        seed: Of everything random in the session.
        sampler: Which examples become candidates.
        policy: Which of the candidates are trained on.
        learner: Name of the model being trained.
        reference: Name of the fixed, well-curated model.
        features: Who computes what the policy reads: scorers of the ``server``, or the
            ``trainer`` (``session.select``).
        max_ahead: Step s is scored as of the report of step ``s - 1 - max_ahead``; 0 is
            on-policy, more lets scoring overlap training.
        on_late: What happens when a trainer has waited ``late_after_seconds`` for a
            score: ``wait`` on, or a ``uniform`` draw from the super-batch, flagged.
        late_after_seconds: See ``on_late``.
        publish_every: The learner is published after every this many steps.
        num_steps: The session's length; endless by default.
        num_epochs: Its length in epochs of the sampler; what ends first, ends it.
        weighting: What the sampler's weights preserve: ``sum`` or ``mean``. A
            policy's weights always preserve the mean over the candidates.
        columns: What is delivered to the trainer; every column by default.
        reference_outputs: What the reference says of a batch's examples and the batch
            carries: ``embeddings``, to distil from (ACED, arXiv 2411.18674), ``loss``.
    """

    pool: str
    batch_size: int
    super_batch_size: int = 0
    seed: int = 0
    sampler: Sampler = dataclasses.field(default_factory=UniformSampler)
    policy: Policy = dataclasses.field(default_factory=Uniform)
    learner: str | None = None
    reference: str | None = None
    features: Literal["server", "trainer"] = "server"
    max_ahead: int = 0
    on_late: Literal["wait", "uniform"] = "wait"
    late_after_seconds: float = 10.0
    publish_every: int = 1
    num_steps: int | None = None
    num_epochs: int | None = None
    weighting: Weighting = "sum"
    columns: list[str] | None = None
    reference_outputs: list[str] = dataclasses.field(default_factory=list[str])

    def __post_init__(self) -> None:
        if self.super_batch_size == 0:
            object.__setattr__(self, "super_batch_size", self.batch_size)
        for name, least in (
            ("batch_size", 1),
            ("super_batch_size", self.batch_size),
            ("max_ahead", 0),
            ("publish_every", 1),
            ("num_steps", 1),
            ("num_epochs", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                why = " (the batch size)" if name == "super_batch_size" else ""
                msg = f"{name}: at least {least}{why}; got {value}"
                raise ValueError(msg)
        repeated = [n for n in self.columns or [] if (self.columns or []).count(n) > 1]
        if repeated:
            msg = f"columns: each one once; got {repeated[0]!r} twice or more"
            raise ValueError(msg)
        if not -(2**63) <= self.seed < 2**63:
            msg = f"seed: a 64-bit integer; got {self.seed}"
            raise ValueError(msg)
        if not self.late_after_seconds > 0:
            msg = f"late_after_seconds: above 0; got {self.late_after_seconds}"
            raise ValueError(msg)
        num_chunks = getattr(self.policy, "num_chunks", 1)
        if num_chunks > self.batch_size:
            msg = (
                f"policy.num_chunks: at most batch_size={self.batch_size}, so that "
                f"every chunk draws an example; got {num_chunks}"
            )
            raise ValueError(msg)
        self._check_features()

    def _check_features(self) -> None:
        """Checks that what the policy needs has somebody to compute it."""
        if self.reference_outputs and self.reference is None:
            msg = (
                f"reference: reference_outputs = {self.reference_outputs} needs one; "
                "name a model of [models]"
            )
            raise ValueError(msg)
        needs = self.policy.needs
        if self.features == "trainer":
            if not needs:
                msg = (
                    f"features: 'trainer' makes no sense for {self.policy!r}, which "
                    "reads no features; leave it out"
                )
                raise ValueError(msg)
            return
        for role in ("learner", "reference"):
            needed = sorted(need for need in needs if need.startswith(f"{role}."))
            if needed and getattr(self, role) is None:
                msg = (
                    f"{role}: {self.policy!r} needs {', '.join(needed)}; name a model "
                    "of [models], or set features = 'trainer'"
                )
                raise ValueError(msg)

    @property
    def needs_learner(self) -> bool:
        """Whether the server scores with snapshots of the learner."""
        return self.features == "server" and any(
            need.startswith("learner.") for need in self.policy.needs
        )

    @property
    def depends_on_reports(self) -> bool:
        """Whether each step depends on the report of one before it."""
        return self.needs_learner or isinstance(self.policy, RememberingPolicy)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All that a server, or :func:`curator.local`, serves."""

    server: ServerSpec = dataclasses.field(default_factory=ServerSpec)
    ray: RaySpec = dataclasses.field(default_factory=RaySpec)
    pools: Mapping[str, PoolSpec] = dataclasses.field(
        default_factory=dict[str, PoolSpec]
    )
    models: Mapping[str, ModelSpec] = dataclasses.field(
        default_factory=dict[str, ModelSpec]
    )
    sessions: Mapping[str, SessionSpec] = dataclasses.field(
        default_factory=dict[str, SessionSpec]
    )


def check_session_name(name: str) -> None:
    """Raises :class:`ConfigError` unless ``name`` can name a session.

    The name is also the name of a folder, hence the narrow alphabet.
    """
    if not _NAME.fullmatch(name):
        msg = (
            "a session's name is 1 to 100 letters, digits, '.', '_' or '-', and "
            f"starts with a letter or digit; got {name!r}"
        )
        raise ConfigError(msg)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint for a name that is not known, ready to append to a message."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}. Known: {', '.join(names) or 'none'}"
