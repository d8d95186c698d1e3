"""Copies of a running server, and what is made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading

import pytest
import worlds
from worlds import IDS_ONLY, JOINT, UNIFORM, served

from curator import engine
from curator.cli.__main__ import main
from curator.engine import checkpoint, restore
from curator.errors import ConfigError, StorageError
from curator.ledger import Ledger
from curator.samplers import InfoBatch

INFOBATCH = dataclasses.replace(
    IDS_ONLY, batch_size=50, super_batch_size=50, sampler=InfoBatch(), num_epochs=50
)


@pytest.fixture
def trained(tmp_path):
    """A state directory whose server has stopped, after three steps."""
    state = tmp_path / "state"
    with served(worlds.config(state, s=IDS_ONLY)) as service:
        worlds.train(service.open("s"), 3)
    return state


@pytest.fixture
def saved(tmp_path, trained):
    checkpoint(trained, str(tmp_path / "saved"))
    return tmp_path / "saved"


# --- there and back ---


@pytest.mark.slow
def test_a_session_scored_by_its_learner_goes_on_where_it_was_copied(tmp_path):
    from towers import build

    spec = dataclasses.replace(JOINT, max_ahead=1)
    model = build()
    with served(worlds.config(tmp_path / "old", s=spec)) as service:
        session = service.open("s")
        before = worlds.train(session, 5, model=model)
        position = session.state_dict()
        parameters = {k: v.clone() for k, v in model.state_dict().items()}
        target = str(tmp_path / "saved")
        # The stream is open, and run-ahead goes on meanwhile.
        assert main(["checkpoint", str(tmp_path / "old"), target]) == 0
        manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
        after = worlds.train(session, 6, model=model)

    assert len(before) == 5
    assert manifest["sessions"]["s"]["next_step"] == 5
    assert main(["restore", target, str(tmp_path / "new")]) == 0
    model.load_state_dict(parameters)
    with served(worlds.config(tmp_path / "new", s=spec)) as service:
        session = service.open("s")
        session.load_state_dict(position)
        worlds.assert_same_batches(worlds.train(session, 6, model=model), after)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [UNIFORM, INFOBATCH], ids=["uniform", "infobatch"])
def test_copies_made_while_training_all_go_on_to_the_same_stream(tmp_path, spec):
    num_steps, targets = 60, []
    with served(worlds.config(tmp_path / "old", s=spec)) as service:
        session = service.open("s")
        batches = worlds.train(session, 1)
        trainer = threading.Thread(
            target=lambda: batches.extend(worlds.train(session, num_steps - 1))
        )
        trainer.start()
        while trainer.is_alive() and len(targets) < 3:
            targets.append(tmp_path / f"saved-{len(targets)}")
            checkpoint(tmp_path / "old", str(targets[-1]))
        trainer.join()

    assert len(batches) == num_steps
    for target in targets:
        state = tmp_path / f"new-{target.name}"
        at = restore(str(target), state).sessions["s"]
        with served(worlds.config(state, s=spec)) as service:
            session = service.open("s")
            assert session.info.next_step == at.next_step
            rest = worlds.train(session, num_steps - at.next_step)
        worlds.assert_same_batches(rest, batches[at.next_step :])


def test_all_sessions_are_copied_and_caches_are_not(tmp_path):
    config = worlds.config(tmp_path / "old", a=IDS_ONLY, b=UNIFORM)
    with served(config) as service:
        worlds.train(service.open("a"), 2)
        worlds.train(service.open("b"), 3)
        (tmp_path / "old" / "features").mkdir()
        manifest = checkpoint(tmp_path / "old", str(tmp_path / "saved"))

    assert {name: s.next_step for name, s in manifest.sessions.items()} == {
        "a": 2,
        "b": 3,
    }
    assert set(manifest.files) == {
        "sessions/a/ledger.sqlite",
        "sessions/b/ledger.sqlite",
    }
    files = {p for p in (tmp_path / "saved").rglob("*") if p.is_file()}
    assert len(files) == 3
    assert manifest.num_bytes == sum(
        p.stat().st_size for p in files if p.name != "manifest.json"
    )


def test_the_state_directory_is_as_it_was(trained, tmp_path):
    with contextlib.closing(Ledger(trained / "sessions/s/ledger.sqlite")):
        before = {p for p in trained.rglob("*") if p.is_file()}
        checkpoint(trained, str(tmp_path / "saved"))
        assert {p for p in trained.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_any_file_system_will_do(trained, tmp_path, scheme):
    if scheme == "memory":
        pytest.importorskip("fsspec")
    target = f"{scheme}://{tmp_path}/saved"

    wrote = checkpoint(trained, target)

    assert restore(target, tmp_path / "new") == wrote
    with contextlib.closing(Ledger(tmp_path / "new/sessions/s/ledger.sqlite")) as new:
        assert new.next_step() == 3


# --- the command ---


def test_the_commands_say_what_they_did(trained, tmp_path, capsys):
    config = tmp_path / "server.toml"
    config.write_text('[server]\nstate_dir = "state"\n')
    target = str(tmp_path / "saved")

    assert main(["checkpoint", str(config), target]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"copied to {target}: 1 files, 0.")
    assert "  s: " in out
    assert "step 3 is next to be trained on" in out

    assert main(["restore", target, str(tmp_path / "new"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["format"] == 1
    assert manifest["sessions"]["s"]["next_step"] == 3


def test_an_error_is_one_line(tmp_path, capsys):
    assert main(["checkpoint", str(tmp_path), str(tmp_path / "saved")]) == 1
    assert "is not the state directory of any session" in capsys.readouterr().err


# --- what is refused ---


def test_a_place_with_a_checkpoint_is_refused(trained, saved):
    with pytest.raises(StorageError, match=r"holds a checkpoint already"):
        checkpoint(trained, str(saved))


def test_what_was_left_of_a_checkpoint_without_manifest_is_written_over(
    trained, saved, tmp_path
):
    (saved / "manifest.json").unlink()
    (saved / "sessions/s/ledger.sqlite").write_bytes(b"half")
    with pytest.raises(StorageError, match=r"no checkpoint, or an incomplete one"):
        restore(str(saved), tmp_path / "new")

    checkpoint(trained, str(saved))

    restore(str(saved), tmp_path / "new")


def test_a_state_directory_that_is_not_empty_is_refused(saved, trained):
    with pytest.raises(StorageError, match=r"is not empty \(it has .*lock"):
        restore(str(saved), trained)


def test_what_a_restore_left_that_was_killed_is_no_hindrance(saved, tmp_path):
    (tmp_path / "new/restoring/sessions/s").mkdir(parents=True)
    (tmp_path / "new/lost+found").mkdir()

    restore(str(saved), tmp_path / "new")

    assert {p.name for p in (tmp_path / "new").iterdir()} == {"lost+found", "sessions"}


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing"])
def test_a_damaged_file_is_found_and_nothing_is_restored(saved, tmp_path, damage):
    path = saved / "sessions/s/ledger.sqlite"
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(content[:-1])
    else:
        content[-1] ^= 1
        path.write_bytes(content)

    with pytest.raises(StorageError, match=r"checkpoint .*sessions/s/ledger.sqlite"):
        restore(str(saved), tmp_path / "new")

    assert not list((tmp_path / "new").iterdir())


def edited(saved, **changes):
    path = saved / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_newer_format_is_refused(saved, tmp_path):
    edited(saved, format=2, curator="9.0")

    with pytest.raises(StorageError, match=r"format 2, of batch-curator 9.0; this"):
        restore(str(saved), tmp_path / "new")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "sessions/../../outside",
        "/sessions/s/ledger.sqlite",
        "sessions/.s/ledger.sqlite",
        "features/s/ledger.sqlite",
        "sessions/ledger.sqlite",
    ],
)
def test_a_manifest_cannot_write_anywhere_else(saved, tmp_path, name):
    edited(saved, files={name: {"size": 0, "blake2b": ""}})

    with pytest.raises(StorageError, match=r"is damaged: manifest.json"):
        restore(str(saved), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"format": 1}'])
def test_a_manifest_that_was_cut_short_is_refused(saved, tmp_path, text):
    (saved / "manifest.json").write_text(text)

    with pytest.raises(StorageError, match=r"is damaged: manifest.json"):
        restore(str(saved), tmp_path / "new")


def test_an_unknown_file_system_is_refused(trained):
    with pytest.raises(ConfigError, match=r"cannot open 'nope://x/y': "):
        checkpoint(trained, "nope://x/y")


def test_a_place_that_cannot_be_written_is_an_error(trained, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match=r"cannot read or write the checkpoint"):
        checkpoint(trained, str(tmp_path / "file" / "saved"))


# --- snapshots ---


@pytest.fixture
def learned(tmp_path):
    """A state directory with snapshots, of which some are discarded."""
    from towers import build

    state = tmp_path / "state"
    with served(worlds.config(state, s=JOINT)) as service:
        worlds.train(service.open("s"), 3, model=build())
    return state


def test_a_damaged_snapshot_is_not_copied(learned, tmp_path):
    newest = max((learned / "sessions/s/snapshots").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")

    with pytest.raises(StorageError, match=r"snapshot .* is damaged"):
        checkpoint(learned, str(tmp_path / "saved"))
    assert not (tmp_path / "saved/manifest.json").exists()


def test_a_snapshot_that_stays_away_is_an_error(learned, tmp_path):
    max((learned / "sessions/s/snapshots").iterdir()).unlink()

    with pytest.raises(StorageError, match=r"replaced 5 times while they were copied"):
        checkpoint(learned, str(tmp_path / "saved"))


def test_the_engine_names_what_the_commands_use():
    assert {"checkpoint", "restore", "dropped"} <= set(engine.__all__)
