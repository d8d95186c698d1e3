"""What every command does alike: help, pipes, streams that are closed, and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import worlds
from worlds import UNIFORM, served

from curator.cli import __main__, completion
from curator.cli.__main__ import COMMANDS, main
from curator.cli.command import Command, options_table, print_json
from curator.errors import ConfigError

NAMES = [command.name for command in COMMANDS]
PLAN = ["plan", "--sampler", "uniform", "--num-examples", "300", "--epoch", "0"]


def run(*arguments: str, env: dict[str, str] | None = None, **given: Any) -> Any:
    """Runs a command in a process of its own, output held back as in a pipe."""
    streams: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **given,
    }
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "curator.cli.__main__", *arguments],
        check=False,
        text=True,
        timeout=120,
        env={**inherited, **(env or {})},
        **streams,
    )


def shell(line: str) -> Any:
    """Runs a line of bash in which ``curator`` is the command."""
    command = f'curator() {{ {sys.executable} -m curator.cli.__main__ "$@"; }}; {line}'
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )


# --- help ---


@pytest.mark.parametrize("name", NAMES)
def test_help_ends_with_an_example_that_can_be_copied(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])

    assert caught.value.code == 0
    text, example = capsys.readouterr().out.split("\nexample:\n  ")
    assert text.startswith(f"usage: curator {name}")
    assert len(example.splitlines()) == 1
    assert f"curator {name} " in example


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_example_is_a_call_that_is_understood(command: Command) -> None:
    words = command.example.split()
    if words[0] == "source":
        words = ["curator", "completion", "bash"]
    words = words[words.index("curator") + 1 :]
    quoted = " ".join(words).replace("'", '"').split('"')
    arguments = [
        word
        for i, part in enumerate(quoted)
        for word in ([part] if i % 2 else part.split())
    ]

    parsed = __main__.make_parser(COMMANDS).parse_args(arguments)

    assert parsed.run is command.run


def test_the_page_of_the_command_line_names_every_command_and_option(
    repository: Path,
) -> None:
    page = (repository / "docs" / "cli.md").read_text()
    parser = __main__.make_parser(COMMANDS)
    for action in completion._actions(parser):
        for option in action.option_strings:
            if option.startswith("--") and option not in ("--help", "--version"):
                assert f"`{option}" in page, option
    for name in NAMES:
        assert f"## `curator {name}`" in page


@pytest.mark.slow
def test_nothing_is_coloured_where_nobody_looks() -> None:
    result = run(*PLAN)
    assert result.returncode == 0
    for each in (run("plan", "--help"), run("srve"), result):
        assert "\x1b" not in each.stdout + each.stderr


# --- wrong calls ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["srve"], "argument COMMAND: invalid choice: 'srve'"),
        ([*PLAN, "--sed", "3"], "arguments: --sed 3 (did you mean '--seed'?)"),
        ([*PLAN, "--see", "3"], "did you mean '--seed'?"),  # no abbreviations
        ([*PLAN, "--epoch", "one"], "argument --epoch: invalid int value: 'one'"),
        ([*PLAN, "a.toml"], "unrecognized arguments: a.toml"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
        (["inspect", "x", "s", "--step", "1", "--example", "2"], "not allowed with"),
    ],
)
def test_a_wrong_call_gets_the_usage_of_its_command(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    name = arguments[0] if arguments[0] in NAMES else ""
    assert streams.err.startswith(f"usage: curator {name}")
    assert message in streams.err
    assert streams.err.splitlines()[-1] == f"see '{f'curator {name}'.strip()} --help'"


def test_an_option_twice_is_told() -> None:
    with pytest.raises(ConfigError, match="option 'a' is given more than once"):
        options_table([("b", 1), ("a", 1), ("a", 2)])


# --- errors ---


@pytest.mark.slow
def test_an_error_is_one_line_and_its_traceback_can_be_had(tmp_path: Path) -> None:
    call = ["serve", str(tmp_path / "none.toml")]

    plain, debug = run(*call), run(*call, env={"CURATOR_DEBUG": "1"})

    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.startswith("curator: cannot read the configuration")
    assert len(plain.stderr.splitlines()) == 1
    assert debug.stderr.startswith("Traceback")
    assert debug.stderr.splitlines()[-1] == plain.stderr.strip()
    assert plain.stdout == debug.stdout == ""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            KeyError("x"),
            70,
            "a bug of batch-curator, please report it: KeyError: 'x'; ",
        ),
        (MemoryError(), 1, "curator: out of memory\n"),
        (
            PermissionError(13, "Permission denied", "f"),
            1,
            "cannot read or write 'f': ",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_nobody_expects_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail(_: object) -> int:
        raise error

    failing = Command("fail", "fails", "Fails.", "curator fail", lambda _: None, fail)
    monkeypatch.setattr(__main__, "COMMANDS", (failing,))
    monkeypatch.delenv("CURATOR_DEBUG", raising=False)

    assert main(["fail"]) == status

    streams = capsys.readouterr()
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


def test_an_error_of_several_lines_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise ConfigError("factory 'm:f' raised RuntimeError:\nno weights\nhere")

    failing = Command("fail", "fails", "Fails.", "curator fail", lambda _: None, fail)
    monkeypatch.setattr(__main__, "COMMANDS", (failing,))
    monkeypatch.delenv("CURATOR_DEBUG", raising=False)

    assert main(["fail"]) == 1
    told = "curator: factory 'm:f' raised RuntimeError: no weights here\n"
    assert capsys.readouterr().err == told


@pytest.mark.slow
def test_ctrl_c_while_it_loads_needs_no_traceback() -> None:
    code = """
import sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "curator.cli.parser":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from curator.cli import main

sys.exit(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


# --- pipes and streams ---


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_in_silence() -> None:
    result = shell("curator completion zsh | head -1 > /dev/null; echo $PIPESTATUS")

    # All of it may have been in the pipe before the reader went.
    assert result.stdout.strip() in ("0", "141")
    assert result.stderr == ""


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_is_141() -> None:
    read, write = os.pipe()
    os.close(read)
    result = run(*PLAN, stdout=write)
    os.close(write)

    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.slow
def test_a_full_disk_behind_stdout_is_told() -> None:
    result = shell("curator completion bash > /dev/full")

    assert result.returncode == 1
    assert result.stderr == "curator: cannot read or write: No space left on device\n"


@pytest.mark.slow
def test_streams_may_be_closed() -> None:
    calls = [f"curator {' '.join(PLAN)} >&-", "curator plan --epoch 0 >&- 2>&-"]

    result = shell("; echo $? ; ".join([*calls, "true"]))

    assert result.stdout.split() == ["0", "1"]


# --- JSON ---


def test_json_has_no_numbers_that_are_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, {"d": None})})

    found = json.loads(capsys.readouterr().out)
    assert found == {"a": "nan", "b": ["inf", 1.5], "c": [1, {"d": None}]}


def test_sessions_are_one_json_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        worlds.train(service.open("s"), 3)
        assert main(["sessions", service._transport._target, "--json"]) == 0

    (found,) = json.loads(capsys.readouterr().out)["sessions"]
    assert (found["name"], found["next_step"]) == ("s", 3)
    assert found["spec"]["batch_size"] == 8
    assert found["cost"]["num_late"] == 0


# --- completion ---


def completed(*calls: tuple[str, ...]) -> list[list[str]]:
    """What bash offers for the last word of each call of ``curator``."""
    lines = [
        "source <(curator completion bash)",
        "function=$(complete -p curator | sed 's/.*-F \\([^ ]*\\).*/\\1/')",
    ]
    for words in calls:
        listed = " ".join(f"'{word}'" for word in ("curator", *words))
        lines.append(f"COMP_WORDS=({listed}); COMP_CWORD={len(words)}; COMPREPLY=()")
        lines.append('$function; echo "${COMPREPLY[@]}"')
    result = shell("; ".join(lines))
    assert result.stderr == ""
    return [line.split() for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_bash_completes_commands_options_choices_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.toml").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)

    offered = completed(
        ("sc",), ("score", "--wh"), ("score", "--executor", ""), ("serve", "ser")
    )

    assert offered == [["score"], ["--where"], ["local", "ray"], ["server.toml"]]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", name]) == 0

    script = capsys.readouterr().out
    assert all(each in script for each in ["curator", "--shard-size", *NAMES])
