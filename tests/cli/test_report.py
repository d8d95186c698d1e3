"""The command: pages on scores, subsets and sessions, and what a wrong call gets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reports
import worlds
from reports import EVIL, NUM_EXAMPLES, Page, write_pair_scores, write_scores
from scored import configured, job, write_config
from worlds import JOINT, served

from curator.cli.__main__ import main
from curator.ledger import Ledger
from curator.offline import score
from curator.offline._subset import Subset, write_subset
from curator.policies import TopK


def run(capsys, *arguments, expect=0):
    assert main(["report", *map(str, arguments)]) == expect
    streams = capsys.readouterr()
    return streams.err if expect else streams.out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with scores, and the options that name their pool."""
    config = reports.write_world(tmp_path)
    write_scores(tmp_path / "scores.parquet")
    return tmp_path, ["--config", str(config), "--pool", "p"]


# --- scores ---


def test_scores_are_shown_with_pictures_text_and_domains(world, capsys) -> None:
    folder, pool = world
    scores, out = folder / "scores.parquet", folder / "out"

    said = run(capsys, scores, "--out", out, *pool)

    assert said.startswith(f"scores of 300 examples in {scores}\n")
    assert "loss " in said
    assert f"{out / 'report.html'} (" in said
    assert {p.name for p in out.glob("*.png")} == {
        "report-heavy-distribution.png",
        "report-heavy-domains.png",
        "report-heavy-loss-relation.png",
        "report-loss-distribution.png",
        "report-loss-domains.png",
    }
    page = Page(out / "report.html")
    assert "script" not in page.tags
    assert f"{EVIL} number 4" in page.text  # whose loss is not a number
    assert "3 examples: 2 are not a number and 1 are infinite." in page.text
    assert "on a logarithmic axis" in page.text
    assert all(
        f"{which} loss" in page.headings
        for which in ("Highest", "Borderline", "Lowest")
    )
    assert all(link.startswith(("#", "data:image/png")) for link in page.links)


def test_the_summary_as_json_names_the_extremes(world, capsys) -> None:
    folder, pool = world
    columns = reports.score_columns()

    out = run(capsys, folder / "scores.parquet", "--out", folder / "o", "--json", *pool)

    found = json.loads(out)
    loss = columns["loss"]
    ranked = np.argsort(np.where(np.isfinite(loss), loss, -1), kind="stable")[::-1]
    assert found["scores"]["loss"]["highest"] == ranked[:8].tolist()
    assert found["scores"]["loss"]["num_nan"] == 2
    finite = loss[np.isfinite(loss)]
    assert found["scores"]["loss"]["quantiles"]["0.5"] == np.quantile(
        finite, 0.5, method="inverted_cdf"
    )
    assert found["page"].endswith("report.html")
    assert found["num_bytes"] == Path(found["page"]).stat().st_size


@pytest.mark.slow
def test_a_second_run_writes_the_same_bytes(world, capsys) -> None:
    folder, pool = world
    call = (folder / "scores.parquet", "--out", folder / "out", *pool)
    run(capsys, *call)
    first = contents(folder / "out")

    run(capsys, *call)

    assert contents(folder / "out") == first


def test_without_a_pool_ids_are_shown_and_how_to_see_more(world, capsys) -> None:
    folder, _ = world

    run(capsys, folder / "scores.parquet", "--out", folder / "out", "--examples", 3)

    page = Page(folder / "out" / "report.html")
    assert "Only ids are shown: give the configuration" in page.text
    assert page.tags.count("article") == 2 * 3 * 3 + 3  # and those not finite
    assert "img" in page.tags


def test_near_duplicates_are_found_and_pairs_compared(tmp_path, capsys) -> None:
    scores = write_pair_scores(tmp_path / "scores.parquet")

    said = run(capsys, scores, "--out", tmp_path / "out")

    assert "5 of 300 are near-duplicates (cosine above 0.95), in 2 groups" in said
    page = Page(tmp_path / "out" / "report.html")
    assert "Group 1: 4 examples" in page.headings
    assert "Group 2: 3 examples" in page.headings
    assert "Highest similarity" in page.headings


def test_a_score_that_is_nowhere_finite_is_said_so(tmp_path, capsys) -> None:
    scores = write_scores(
        tmp_path / "scores.parquet",
        {"loss": np.full(9, np.nan), "same": np.full(9, 2.0)},
    )

    run(capsys, scores, "--out", tmp_path / "out")

    assert "loss is finite for no example." in Page(tmp_path / "out/report.html").text


def test_what_is_neither_a_number_nor_an_embedding_is_named(tmp_path, capsys) -> None:
    rows = 20
    columns = {
        "loss": pa.array(np.arange(rows) / 7),
        "class": pa.array(["a"] * rows),
        "flag": pa.array([True] * rows),
        "ragged": pa.array([[1.0]] * rows),
        "words": pa.array([["a", "b"]] * rows, pa.list_(pa.string(), 2)),
        "second": pa.array([[1.0, 2.0]] * rows, pa.list_(pa.float32(), 2)),
        "first": pa.array([[1.0, 2.0]] * rows, pa.list_(pa.float32(), 2)),
        "queries": pa.array(np.arange(rows)),  # of what is no pair
    }
    table = pa.table({"example_id": np.arange(rows), **columns})
    pq.write_table(table, tmp_path / "scores.parquet")

    said = run(capsys, tmp_path / "scores.parquet", "--out", tmp_path / "out")

    assert "19 of 20 are near-duplicates" in said
    text = Page(tmp_path / "out/report.html").text
    assert (
        "Not shown: class (string), flag (bool), ragged (list<element: double>), words "
        "(fixed_size_list<element: string>[2]), second (fixed_size_list<element: "
        "float>[2]), queries (int64). A score is one number"
    ) in text
    assert "have first with a cosine above" in text


def test_sides_of_two_lengths_are_no_pairs(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    sides = {"queries": rng.random((9, 4)), "targets": rng.random((9, 3))}
    scores = write_scores(tmp_path / "scores.parquet", {"loss": np.ones(9)}, **sides)

    run(capsys, scores, "--out", tmp_path / "out")

    assert "Not shown: queries (" in Page(tmp_path / "out/report.html").text


def test_names_that_no_font_can_draw_are_on_the_page(tmp_path, capsys) -> None:
    names = [b"web", b"\xef\xb7\x90", b"a\nb", b"\x00", b"", None, b"\xff"]
    raw = pa.array(names * 9, pa.binary())
    ratings = [float("nan"), 1.0, 2.0, None, 1.0, 2.0, 1.0] * 9
    table = pa.table({"domain": raw.view(pa.string()), "rating": ratings})
    pq.write_table(table, tmp_path / "pool.parquet")
    config = tmp_path / "server.toml"
    config.write_text("[pools.p]\nformat = 'parquet'\npath = 'pool.parquet'\n")
    scores = write_scores(tmp_path / "s.parquet", {"a\nb\x1b[31m": np.arange(63.0)})
    call = (scores, "--out", tmp_path / "out", "--config", config, "--pool", "p")

    said = run(capsys, *call)

    assert "\n  a b\ufffd[31m " in said
    page = Page(tmp_path / "out/report.html").text
    assert "No font that was found can draw some names: [1] is \ufdd0." in page
    assert "(not UTF-8)" in page
    run(capsys, *call, "--domain", "rating")
    assert "By rating" in Page(tmp_path / "out/report.html").headings


def test_scores_of_the_command_say_where_they_are_from(tmp_path, capsys) -> None:
    config = write_config(tmp_path)
    score(configured(tmp_path), job(tmp_path / "scores"))
    options = ("--config", config, "--pool", "p")

    run(capsys, tmp_path / "scores", "--out", tmp_path / "out", *options)

    page = Page(tmp_path / "out" / "report.html")
    assert "small_models:classifier" in page.text
    assert "By label" in page.headings  # the model's own


def test_scores_that_are_not_finished_are_refused(tmp_path, capsys) -> None:
    score(configured(tmp_path), job(tmp_path / "scores"))
    (tmp_path / "scores" / "part-00001.parquet").unlink()

    said = run(capsys, tmp_path / "scores", "--out", tmp_path / "out", expect=1)

    assert "not finished" in said
    assert not (tmp_path / "out").exists()


def test_another_pool_is_refused(tmp_path, capsys) -> None:
    score(configured(tmp_path), job(tmp_path / "scores"))
    other = tmp_path / "other"
    other.mkdir()
    config = write_config(other, num_examples=251)
    call = (tmp_path / "scores", "--out", tmp_path / "out", "--config", config)

    said = run(capsys, *call, "--pool", "p", expect=1)

    assert said.startswith("curator: pool 'p' is not the one that was scored: its fing")


# --- subsets ---


@pytest.fixture
def subset(world) -> tuple[Path, list[str]]:
    """The half with the lowest loss, all of one domain left out."""
    folder, pool = world
    loss = reports.score_columns()["loss"]
    usable = np.where(
        reports.domain_of(NUM_EXAMPLES) == 1, np.inf, np.nan_to_num(loss, nan=np.inf)
    )
    ids = np.sort(np.argsort(usable, kind="stable")[:150])
    metadata = {
        "policy": {"name": "topk"},
        "where": "loss < 9",
        "num_examples": NUM_EXAMPLES,
        "num_selected": 150,
        "pool_fingerprint": None,
        "stats": {"num_quarantined": 3.0},
    }
    weights = np.linspace(0.5, 1.5, 150).astype(np.float32)
    chosen = Subset(ids, weights, -loss[ids], metadata)
    write_subset(folder / "subset.parquet", chosen)
    return folder, ["--scores", str(folder / "scores.parquet"), *pool]


def test_a_subset_is_compared_with_all_and_drop_rates_by_domain(subset, capsys) -> None:
    folder, options = subset

    said = run(capsys, folder / "subset.parquet", "--out", folder / "out", *options)

    assert "150 of 300 examples (50.0 %), selected by topk, where loss < 9." in said
    page = Page(folder / "out" / "report.html")
    assert "By loss, which tells best what was selected" in page.text
    assert "Dropped, with the lowest loss" in page.headings
    assert "Selected, with the highest loss" in page.headings
    dropped = "".join(page.text.partition("Dropped, by domain")[2].split())
    assert f"food&drink{(reports.domain_of(300) == 1).sum()}0100.0%" in dropped
    assert "Weights" in page.headings


def test_a_subset_alone_says_what_is_missing(subset, capsys) -> None:
    folder, _ = subset

    out = run(capsys, folder / "subset.parquet", "--out", folder / "out", "--json")

    assert json.loads(out)["num_selected"] == 150
    page = Page(folder / "out" / "report.html")
    assert "give their folder (--scores SCORES) to see it" in page.text
    assert "Selected, with the highest score" in page.headings


def test_scores_of_others_are_refused(subset, capsys) -> None:
    folder, _ = subset
    few = write_scores(folder / "few.parquet", {"loss": np.ones(160)})
    call = (folder / "subset.parquet", "--out", folder / "out", "--scores")

    said = run(capsys, *call, few, expect=1)

    assert "of the subset's examples: it was selected from others" in said


# --- sessions ---


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """The state directory of a session of five steps."""
    from towers import build

    spec = dataclasses.replace(
        JOINT, policy=TopK(loss="sigmoid"), super_batch_size=24, num_steps=30
    )
    with served(worlds.config(tmp_path, s=spec)) as service:
        worlds.train(service.open("s"), 5, model=build())
    return tmp_path


def test_a_session_is_shown_step_by_step(session, capsys) -> None:
    said = run(capsys, session, "--session", "s", "--out", session / "out")

    assert "steps, 8 of 24 candidates each, chosen by topk." in said
    assert "times the pool of 200" in said
    names = {path.name for path in (session / "out").glob("*.png")}
    assert {
        "report-scores.png",
        "report-losses.png",
        "report-times-chosen.png",
    } <= names
    page = Page(session / "out" / "report.html")
    assert "Only ids are shown: give the server's CONFIG.toml" in page.text
    assert "Never chosen" in page.headings


def test_a_session_with_its_pool_shows_the_mixture(tmp_path, capsys) -> None:
    config = reports.write_world(tmp_path)
    config.write_text(
        f"{config.read_text()}\n[server]\nstate_dir = 'state'\n"
        "[sessions.run]\npool = 'p'\nbatch_size = 20\n"
    )
    import curator

    with curator.local(str(config)) as service:
        worlds.train(service.open("run"), 20)

    out = run(capsys, config, "--session", "run", "--out", tmp_path / "out", "--json")

    found = json.loads(out)
    assert (found["num_chosen"], found["num_distinct"]) == (400, 300)
    assert found["effective_epochs"] == pytest.approx(4 / 3)
    page = Page(tmp_path / "out" / "report.html")
    assert "By domain" in page.headings
    assert "Chosen least often" in page.headings
    assert f"{EVIL} number" in page.text


def test_a_session_that_has_skipped_for_long_is_shown(tmp_path, capsys) -> None:
    config = reports.write_world(tmp_path)
    config.write_text(
        f"{config.read_text()}\n[server]\nstate_dir = 'state'\n"
        "[sessions.run]\npool = 'p'\nbatch_size = 20\n"
    )
    import curator

    with curator.local(str(config)) as service:
        session = service.open("run")
        worlds.train(session, 10)
        session.skip(400)
        worlds.train(session, 10)

    out = run(capsys, config, "--session", "run", "--out", tmp_path / "out", "--json")

    assert json.loads(out)["num_chosen"] == 400
    assert "By domain" in Page(tmp_path / "out" / "report.html").headings


def test_a_session_that_is_not_there_is_named_with_those_that_are(
    session, capsys
) -> None:
    said = run(capsys, session, "--session", "t", "--out", session / "o", expect=1)

    assert "no session 't' in the state directory" in said
    assert "Known: s" in said


def test_a_session_without_a_step_has_nothing_to_report(tmp_path, capsys) -> None:
    (tmp_path / "sessions" / "s").mkdir(parents=True)
    Ledger(tmp_path / "sessions" / "s" / "ledger.sqlite").close()

    said = run(capsys, tmp_path, "--session", "s", "--out", tmp_path / "o", expect=1)

    assert "session 's' has not closed a step yet" in said


def test_a_pool_that_has_changed_is_refused(session, capsys) -> None:
    table = worlds.pairs(seed=4)
    with (
        pa.OSFile(str(session / "pairs.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    config = session / "server.toml"
    config.write_text(
        f"[server]\nstate_dir = '{session}'\n"
        "[pools.pairs]\nformat = 'arrow'\npath = 'pairs.arrow'\n"
    )
    call = (config, "--session", "s", "--out", session / "out")

    assert "has changed since the session was opened" in run(capsys, *call, expect=1)


def test_a_pool_of_another_session_is_refused(tmp_path, capsys) -> None:
    config = reports.write_world(tmp_path)
    config.write_text(
        f"{config.read_text()}\n[server]\nstate_dir = 'state'\n"
        "[pools.other]\nformat = 'arrow'\npath = 'other.arrow'\n"
        "[sessions.run]\npool = 'p'\nbatch_size = 20\n"
    )
    table = worlds.pairs(seed=4)
    with (
        pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    import curator

    with curator.local(str(config)) as service:
        worlds.train(service.open("run"), 2)
    call = (config, "--session", "run", "--pool", "other", "--out", tmp_path / "out")

    said = run(capsys, *call, expect=1)

    assert "'other' is not the pool of session 'run', which is 'p'" in said


# --- wrong calls ---


def test_what_is_no_report_is_one_line_on_stderr(world, capsys) -> None:
    folder, pool = world
    scores, out = folder / "scores.parquet", ("--out", folder / "out")
    text = folder / "text.parquet"
    text.write_text("no Parquet")
    state = folder / "state"
    (state / "sessions" / "run").mkdir(parents=True)
    (state / "sessions" / "run" / "ledger.sqlite").touch()
    for call, message in (
        ([folder / "none"], "nothing to report on: there is no "),
        ([text], "is nothing to report on"),
        ([state], "is a server's: add --session NAME (run)"),
        ([scores, "--pool", "p"], "no pool at 'p': no such file or folder"),
        ([scores, *pool[:2]], "pool: which one of the configuration? Name it"),
        ([scores, *pool[:3], "q"], "no pool 'q'"),
        ([scores, "--text", "caption"], "--text is a column of a pool: add --pool"),
        ([scores, *pool, "--text", "captoin"], "--text: the pool has no column"),
        ([scores, *pool, "--image", "tokens"], "--image: column 'tokens' "),
        ([scores, "--scores", scores], "--scores does not go with a report on scores"),
        ([state, "--session", "run", "--scores", "x"], "--scores does not go with "),
        ([state, "--session", "run", "--text", "x"], "are columns of the pool: give"),
    ):
        said = run(capsys, *call, *out, expect=1)
        assert message in said
        assert len(said.splitlines()) == 1
    assert not (folder / "out").exists()


def test_a_pool_that_is_too_small_is_refused(world, capsys) -> None:
    folder, pool = world
    more = write_scores(folder / "more.parquet", {"loss": np.ones(400)})

    said = run(capsys, more, "--out", folder / "out", *pool, expect=1)

    assert "has 300 examples, and the scores have example 399" in said


def test_a_domain_with_too_many_values_is_refused_if_it_was_asked_for(
    tmp_path, capsys
) -> None:
    config = reports.write_world(tmp_path, num_examples=1200)
    scores = write_scores(tmp_path / "s.parquet", {"loss": np.arange(1200.0)})
    options = ("--out", tmp_path / "out", "--config", config, "--pool", "p")

    said = run(capsys, scores, *options, "--domain", "caption", expect=1)

    assert "--domain: column 'caption' has over 1000 values" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--examples", "0"], "--examples: at least 1; got 0"),
        (["--cosine", "1.5"], "--cosine: between 0 and 1; got 1.5"),
        (["--cosine", "a"], "--cosine: expected a number between 0 and 1; got 'a'"),
        (["--out", ""], "--out: expected the name of a file or folder on this mach"),
        (["--out", "s3://b/o"], "file or folder on this machine; got 's3://b/o'"),
        (["--out", "\udcff"], "--out: expected a name in UTF-8, or a link with"),
        (
            ["--scores", ""],
            "--scores: expected the name of a file or folder on this mach",
        ),
        (
            ["--config", ""],
            "--config: expected the name of a file or folder on this mach",
        ),
    ],
)
def test_a_wrong_option_exits_with_2(tmp_path, capsys, options, message) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["report", "x", "--out", str(tmp_path / "o"), *options])

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "matplotlib",
            "a report needs matplotlib, which is not installed: pip install",
        ),
        ("jinja2", "a report needs Jinja, which is not installed: pip install"),
    ],
)
def test_what_is_not_installed_is_named(world, module: str, message: str) -> None:
    folder, _ = world
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from curator.cli.__main__ import main\n"
        f"sys.exit(main(['report', {str(folder / 'scores.parquet')!r}, '--out', "
        f"{str(folder / 'out')!r}]))"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert found.returncode == 1
    assert message in found.stderr
