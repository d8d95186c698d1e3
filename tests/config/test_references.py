"""Which model fits which policy, and what a model of each kind has to say."""

import dataclasses
from typing import Any

import pytest

from curator.config import (
    ModelSpec,
    SessionSpec,
    check_references,
    parse_config,
    parse_session,
)
from curator.errors import ConfigError
from curator.models import CausalLMHead, ClassifierHead, TwoTowerHead
from curator.policies import Joint, TopK

MODULE: dict[str, Any] = {"factory": "towers:build", "columns": ["x"]}
MODELS = {
    "pairs": ModelSpec(**MODULE),
    "classes": ModelSpec(kind="classifier", label="y", **MODULE),
    "words": ModelSpec(kind="causal_lm", tokens="t", **MODULE),
    "table": ModelSpec(kind="table", path="t.parquet"),
}
RHO = SessionSpec(
    pool="p",
    batch_size=8,
    policy=TopK(),
    learner="classes",
    reference="table",
)


def check(spec, **changes):
    spec = dataclasses.replace(spec, **changes)
    check_references(spec, ["p"], MODELS, "sessions.s")


@pytest.mark.parametrize("learner", ["classes", "words"])
@pytest.mark.parametrize("reference", ["classes", "words", "table"])
def test_losses_come_from_classifiers_language_models_and_tables(learner, reference):
    check(RHO, learner=learner, reference=reference)


@pytest.mark.parametrize("reference", ["pairs", "table"])
def test_embeddings_come_from_two_towers_and_tables(reference):
    check(RHO, policy=Joint(num_chunks=2), learner="pairs", reference=reference)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learner": "pairs"},
            (
                r"sessions.s: policy: TopK.* needs learner.loss; learner 'pairs' is of "
                r"kind 'two_tower', which gives embeddings. Name one of kind "
                r"classifier or causal_lm, or change what the policy reads \(its loss "
                r"or score\), or let .*: features = 'trainer'"
            ),
        ),
        (
            {"reference": "pairs"},
            r"reference.loss; reference 'pairs' .* classifier or causal_lm or table",
        ),
        (
            {"policy": Joint(num_chunks=2), "learner": "pairs", "reference": "classes"},
            (
                r"reference.embeddings; reference 'classes' is of kind 'classifier', "
                r"which gives entropy, grad_norm, loss. Name one of kind two_tower or "
                r"table, or"
            ),
        ),
        (
            {"learner": "table"},
            (
                r"sessions.s: learner: model 'table' is a table, and a learner "
                r"changes .*; a table can be the reference"
            ),
        ),
        ({"reference": "tabel"}, r"no model 'tabel' \(did you mean 'table'\?\)"),
    ],
)
def test_a_model_that_does_not_give_what_is_needed_is_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(RHO, **changes)


def test_a_learner_that_the_trainer_runs_may_be_of_any_kind():
    check(RHO, learner="pairs", features="trainer")
    with pytest.raises(ConfigError, match=r"reference 'pairs' is of kind"):
        check(RHO, reference="pairs", features="trainer")


def test_what_no_kind_gives_is_told_without_a_suggestion():
    @dataclasses.dataclass(frozen=True)
    class Odd:
        @property
        def needs(self):
            return frozenset({"learner.aura", "pool.y", "memory"})

        def select(self, ids, features, num_selected, noise):
            return features["learner.aura"]

    with pytest.raises(ConfigError, match=r"gives .*, loss. Either change what the po"):
        check(RHO, policy=Odd())


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"policy": "topk"}, r"learner: TopK.* needs learner.loss; name a model of"),
        (
            {"policy": "topk", "learner": "m"},
            r"reference: TopK.* needs reference.loss; name a model of \[models\], or",
        ),
    ],
)
def test_a_model_that_is_needed_and_not_named_is_told(session, message):
    with pytest.raises(ConfigError, match=message):
        parse_session({"pool": "p", "batch_size": 8, **session})


# --- kinds ---


def test_kinds_give_what_their_heads_say():
    assert MODELS["pairs"].outputs == TwoTowerHead().outputs
    assert MODELS["classes"].outputs == ClassifierHead(label="y").outputs
    assert MODELS["words"].outputs == CausalLMHead(tokens="t").outputs
    assert MODELS["table"].outputs is None


def test_columns_are_told_by_the_key_that_names_them():
    assert MODELS["pairs"].reads == {"columns": ["x"]}
    assert MODELS["classes"].reads == {"columns": ["x"], "label": ["y"]}
    words = dataclasses.replace(MODELS["words"], mask="m")
    assert words.reads == {"columns": ["x"], "tokens": ["t"], "mask": ["m"]}
    assert MODELS["table"].reads == {"columns": []}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"columns": ["x"]}, "factory: missing; a model of kind 'two_tower' needs it"),
        ({"factory": "a:b", "columns": []}, "columns: missing; a model of kind"),
        ({**MODULE, "kind": "tower"}, r"kind: .*'two_tower', .* 'table'; got 'tower'"),
        ({**MODULE, "kind": "classifier"}, "label: missing; a model of kind 'classi"),
        ({**MODULE, "kind": "causal_lm"}, "tokens: missing; a model of kind 'causal"),
        ({"kind": "table"}, "path: missing; a model of kind 'table' needs it"),
        (
            {**MODULE, "label": "y"},
            "label: not for a model of kind 'two_tower', which takes factory, columns,",
        ),
        (
            {**MODULE, "kind": "classifier", "label": "y", "mask": "m"},
            "mask: not for a model of kind 'classifier', .*; got 'm'",
        ),
        (
            {**MODULE, "path": "t.parquet"},
            "path: not for a model of kind 'two_tower', .*; got 't.parquet'",
        ),
        (
            {"kind": "table", "path": "t", "dtype": "bfloat16"},
            "dtype: not for a model of kind 'table', which takes path, model; got 'bfl",
        ),
        (
            {"kind": "table", "path": "t", **MODULE},
            r"factory: not for a model of kind 'table', which takes path, model; got",
        ),
        ({**MODULE, "factory": "a.b"}, "factory: expected 'package.module:function'"),
        ({**MODULE, "micro_batch_size": 0}, "micro_batch_size: at least 1; got 0"),
    ],
)
def test_keys_that_do_not_belong_to_the_kind_are_told(model, message):
    with pytest.raises(ConfigError, match=rf"models\.m\.{message}"):
        parse_config({"models": {"m": model}})
