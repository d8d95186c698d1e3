from __future__ import annotations

import pytest

from curator.errors import ConfigError
from curator.models._factory import call_factory


def test_arguments_are_passed_by_name() -> None:
    assert call_factory("builtins:dict", {"a": 1, "b": [2]}) == {"a": 1, "b": [2]}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("two_tower", "expected 'package.module:function'; got 'two_tower'"),
        (":build", "expected 'package.module:function'; got ':build'"),
        ("two_tower:", "expected 'package.module:function'; got 'two_tower:'"),
        ("no_such_module:build", "no module 'no_such_module'; install it, or put its"),
        ("json.nothing:build", "no module 'json.nothing'"),
        ("two_tower:biuld", "module 'two_tower' has no 'biuld'"),
        ("odd_towers:NOT_CALLABLE", "'odd_towers:NOT_CALLABLE' is a int; expected"),
        (
            "imports_nothing_there:build",
            (
                "importing 'imports_nothing_there' raised ModuleNotFoundError: "
                "No module named 'surely_no_such_package'"
            ),
        ),
        (".relative:build", "importing '.relative' raised TypeError"),
        ("sys:exit", r"'sys:exit' raised SystemExit when called with \(\)"),
        ("odd_towers:raises", r"raised RuntimeError when called with \(\): no check"),
    ],
)
def test_a_wrong_path_is_named(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call_factory(path, {})


def test_wrong_arguments_are_shown() -> None:
    message = (
        r"'two_tower:build' raised TypeError when called with \(width=3\): .*width"
    )

    with pytest.raises(ConfigError, match=message) as info:
        call_factory("two_tower:build", {"width": 3})
    assert isinstance(info.value.__cause__, TypeError)
