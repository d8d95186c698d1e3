"""The command: what it says of a session, and what a wrong question gets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest
import worlds
from worlds import IDS_ONLY, JOINT, served

from curator.cli.__main__ import main
from curator.ledger import Ledger
from curator.policies import TopK
from curator.samplers import RS2, InfoBatch

TOPK = dataclasses.replace(
    JOINT, policy=TopK(loss="sigmoid"), super_batch_size=24, num_steps=30
)


def ask(capsys, state, *question, expect=0):
    assert main(["inspect", str(state), *question]) == expect
    streams = capsys.readouterr()
    return streams.err if expect else streams.out


def ask_json(capsys, state, *question):
    return json.loads(ask(capsys, state, *question, "--json"))


@pytest.fixture
def scored(tmp_path):
    """A state directory of a session of four steps, and its batches."""
    from towers import build

    with served(worlds.config(tmp_path, s=TOPK)) as service:
        batches = worlds.train(service.open("s"), 4, model=build())
    return tmp_path, batches


@pytest.fixture
def drawn(tmp_path):
    """The same, without models and scores."""
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        batches = worlds.train(service.open("s"), 4)
    return tmp_path, batches


# --- summary ---


def test_the_summary_says_what_and_where_a_session_is(scored, capsys):
    state, _ = scored

    out = ask(capsys, state, "s")

    assert "  super_batch_size = 24" in out
    assert "of 200 examples" in out
    assert " 4 closed; kept: 0 to " in out
    assert "snapshot   the last one after 4 learner steps" in out
    # Of four steps, and of the next if it was made while the fourth was reported.
    num_scored = 24 * ask_json(capsys, state, "s")["num_defined"]
    assert f"num_learner_scored {num_scored}" in out
    assert "on disk    ledger 0." in out


def test_the_summary_as_json_is_the_same(scored, capsys):
    state, _ = scored

    found = ask_json(capsys, state, "s")

    assert found["spec"]["batch_size"] == 8
    assert (found["num_examples"], found["next_step"]) == (200, 4)
    assert found["num_bytes"]["snapshots"] > 0


def test_the_summary_says_what_a_session_was_forked_from(tmp_path, capsys):
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        worlds.train(service.open("s"), 3)
        service.fork("s", "b", step=2)

    assert "fork       of s at step 2" in ask(capsys, tmp_path, "b")
    assert "fork " not in ask(capsys, tmp_path, "s")


def test_it_answers_while_a_server_runs_and_names_skips(tmp_path, capsys):
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        session = service.open("s")
        worlds.train(session, 2)
        session.skip(3)
        worlds.train(session, 1)

        assert "skipped    2 to 4" in ask(capsys, tmp_path, "s")
        assert ask_json(capsys, tmp_path, "s")["next_step"] == 6
        assert ask_json(capsys, tmp_path, "s", "--step", "3")["skipped"] is True


# --- steps ---


def test_a_step_is_shown_as_it_was_delivered_and_reported(scored, capsys):
    state, batches = scored

    found = ask_json(capsys, state, "s", "--step", "2")

    assert found["ids"] == batches[2].ids.tolist()
    np.testing.assert_array_equal(found["weights"], batches[2].weights)
    assert found["snapshot_step"] == batches[2].snapshot_step
    np.testing.assert_allclose(found["losses"], np.linspace(0, 1, 8), rtol=1e-6)
    assert sorted(found["ranks"]) == list(range(1, 9))
    assert (found["closed"], found["late"], found["skipped"]) == (True, False, False)

    out = ask(capsys, state, "s", "--step", "2")
    assert out.startswith("step 2 of epoch 0, closed; scored after ")
    assert f"{batches[2].ids[0]:12}" in out


def test_a_step_that_is_not_defined_is_an_error_that_says_which_are(drawn, capsys):
    state, _ = drawn

    err = ask(capsys, state, "s", "--step", "4000", expect=1)

    assert "session 's' has no step 4000: it has steps 0 to " in err


def test_a_step_that_is_not_kept_is_an_error_that_says_why(drawn, capsys):
    state, _ = drawn
    with contextlib.closing(Ledger(state / "sessions/s/ledger.sqlite")) as ledger:
        ledger.discard_before(2)

    err = ask(capsys, state, "s", "--step", "1", expect=1)

    assert "it has steps 2 to " in err
    assert "older ones are not kept: server.keep_steps" in err


# --- examples ---


def test_an_example_has_every_step_it_was_in(scored, capsys):
    state, batches = scored
    example = int(batches[1].ids[3])

    found = ask_json(capsys, state, "s", "--example", str(example))

    step = ask_json(capsys, state, "s", "--step", "1")
    assert [each["step"] for each in found["appearances"]] == [1]
    each = found["appearances"][0]
    assert each["position"] == 3
    for key in ("weight", "score", "rank"):
        assert each[key] == step[f"{key}s"][3]
    assert each["loss"] == pytest.approx(3 / 7)
    assert "in 1 of " in ask(capsys, state, "s", "--example", str(example))


def test_an_example_that_never_was_in_a_batch_has_no_step(drawn, capsys):
    state, batches = drawn
    seen = {int(i) for batch in batches for i in batch.ids}
    never = min(set(range(1000)) - seen)

    out = ask(capsys, state, "s", "--example", str(never))

    assert out.startswith(f"example {never}: in 0 of ")


@pytest.mark.parametrize("example", [-1, 1000])
def test_an_example_that_the_pool_has_not_is_told(drawn, capsys, example):
    state, _ = drawn

    told = ask(capsys, state, "s", f"--example={example}", expect=1)

    assert f"no example {example}; the pool has examples 0 to 999" in told
    assert ask(capsys, state, "s", "--example", "999").startswith("example 999: in ")


# --- what was dropped ---


def test_dropped_and_selected_are_the_candidates(scored, capsys):
    state, batches = scored
    plain = dataclasses.replace(
        worlds.UNIFORM, batch_size=24, super_batch_size=24, seed=TOPK.seed
    )
    # What is selected of all candidates is all candidates.
    with served(worlds.config(state / "all", s=plain)) as service:
        candidates = worlds.train(service.open("s"), 4)

    for step in range(4):
        found = ask_json(capsys, state, "s", "--dropped", str(step))
        assert len(found["ids"]) == 16
        assert found["num_candidates"] == 24
        together = {*found["ids"], *batches[step].ids.tolist()}
        assert together == set(candidates[step].ids.tolist())
    out = ask(capsys, state, "s", "--dropped", "0")
    assert out.startswith("step 0: 16 of 24 candidates were not selected")


@pytest.mark.slow
def test_what_was_dropped_of_a_plan_from_losses_is_planned_again(tmp_path, capsys):
    spec = dataclasses.replace(
        TOPK,
        policy=TopK(loss="sigmoid"),
        sampler=InfoBatch(),
        num_epochs=20,
        num_steps=None,
    )
    from towers import build

    with served(worlds.config(tmp_path, s=spec)) as service:
        session = service.open("s")
        batches = worlds.train(session, 30, model=build())
        plans = sorted((tmp_path / "sessions/s/plans").iterdir())
        content = [path.read_bytes() for path in plans]

        for step in (0, 9, 17, 29):
            found = ask_json(capsys, tmp_path, "s", "--dropped", str(step))
            assert len(found["ids"]) == 16
            assert not set(found["ids"]) & set(batches[step].ids.tolist())

        # The server's files are only read.
        assert sorted((tmp_path / "sessions/s/plans").iterdir()) == plans
        assert [path.read_bytes() for path in plans] == content

    for path in plans:
        path.unlink()
    with contextlib.closing(Ledger(tmp_path / "sessions/s/ledger.sqlite")) as ledger:
        ledger.discard_before(5)
    err = ask(capsys, tmp_path, "s", "--dropped", "29", expect=1)
    assert "planned from losses that are no longer kept (server.keep_steps)" in err


def test_a_ledger_without_the_size_of_the_pool_needs_the_configuration(drawn, capsys):
    state, _ = drawn
    with contextlib.closing(sqlite3.connect(state / "sessions/s/ledger.sqlite")) as db:
        db.execute("DELETE FROM meta WHERE key = 'num_examples'")
        db.commit()

    err = ask(capsys, state, "s", "--dropped", "1", expect=1)
    assert "did not record the size of the pool: give the server's CONFIG.toml" in err
    assert "of unknown size" in ask(capsys, state, "s")

    config = state / "server.toml"
    text = '[server]\nstate_dir = "."\n[pools.ids]\nformat = "virtual"\n'
    config.write_text(f"{text}num_examples = 1000\n")
    assert ask_json(capsys, config, "s", "--dropped", "1")["ids"] == []

    config.write_text(f"{text}num_examples = 1001\n")
    err = ask(capsys, config, "s", "--dropped", "1", expect=1)
    assert "pool 'ids' has changed since the session was opened" in err

    config.write_text('[server]\nstate_dir = "."\n')
    assert "no pool 'ids'" in ask(capsys, config, "s", "--dropped", "1", expect=1)


def test_a_sampler_that_reads_columns_needs_the_configuration(tmp_path, capsys):
    spec = dataclasses.replace(
        worlds.UNIFORM, sampler=RS2(ratio=0.5, stratify_by="number")
    )
    with served(worlds.config(tmp_path, s=spec)) as service:
        worlds.train(service.open("s"), 1)

    err = ask(capsys, tmp_path, "s", "--dropped", "0", expect=1)

    assert "the sampler reads number: give the server's CONFIG.toml" in err


def test_a_batch_that_no_plan_has_is_not_explained(drawn, capsys):
    state, _ = drawn
    with contextlib.closing(sqlite3.connect(state / "sessions/s/ledger.sqlite")) as db:
        db.execute("UPDATE meta SET value = '500' WHERE key = 'num_examples'")
        db.commit()

    err = ask(capsys, state, "s", "--dropped", "1", expect=1)

    assert "step 1 has examples that are not among the candidates" in err


# --- export ---


def test_an_export_has_a_row_per_example_of_each_step(scored, tmp_path, capsys):
    state, batches = scored
    path = tmp_path / "steps.parquet"

    out = ask(capsys, state, "s", "--export", str(path))

    table = pq.read_table(path)
    assert f"{table.num_rows} rows in {path}" in out
    for batch in batches:
        rows = table.filter(table.column("step").to_numpy() == batch.step)
        assert rows.column("example_id").to_pylist() == batch.ids.tolist()
        assert rows.column("snapshot_step").to_pylist() == [batch.snapshot_step] * 8
    assert list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part")) == []


def test_an_export_that_cannot_be_written_is_an_error(drawn, tmp_path, capsys):
    state, _ = drawn
    path = tmp_path / "nowhere" / "steps.parquet"

    err = ask(capsys, state, "s", "--export", str(path), expect=1)

    assert f"cannot write '{path}'" in err


# --- wrong calls ---


def test_an_unknown_session_is_an_error_that_names_those_there_are(drawn, capsys):
    state, _ = drawn

    err = ask(capsys, state, "S", expect=1)

    assert "no session 'S' in the state directory" in err
    assert "Known: s" in err


def test_one_question_at_a_time(drawn, capsys):
    state, _ = drawn
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(state), "s", "--step", "1", "--example", "2"])

    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_session_that_was_never_opened_says_so(tmp_path, capsys):
    folder = tmp_path / "sessions" / "s"
    folder.mkdir(parents=True)
    Ledger(folder / "ledger.sqlite").close()

    assert "has never been opened" in ask(capsys, tmp_path, "s", expect=1)
    assert "no step is defined" in ask(capsys, tmp_path, "s", "--step", "0", expect=1)


def test_what_is_not_finite_is_text_in_json(tmp_path, capsys):
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        session = service.open("s")
        batch = next(iter(session.batches()))
        session.report(batch, loss=np.array([np.nan, *range(7)], np.float32))

    found = ask_json(capsys, tmp_path, "s", "--step", "0")

    assert found["losses"] == ["nan", *map(float, range(7))]
