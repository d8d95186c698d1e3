import numpy as np
import pytest

from curator.engine._memory import PolicyMemory
from curator.engine._skips import Skips
from curator.ledger import Ledger, StepRecord


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def record(step, rows):
    remember = None if rows is None else np.array(rows, np.float32).reshape(-1, 2)
    ids, weights = np.arange(2), np.ones(2, np.float32)
    return StepRecord(step, 0, ids, weights, remember=remember)


def define(ledger, memory, number, rows, max_ahead=0):
    forget_before = memory.forgettable_before(number + 1 - max_ahead)
    ledger.append(record(number, rows), forget_before=forget_before)
    memory.add(record(number, rows))


def test_newest_rows_come_back_oldest_first(ledger):
    memory = PolicyMemory(3, ledger, Skips(ledger))
    assert memory.rows(0).shape[0] == 0
    for step in range(3):
        define(ledger, memory, step, [[step, 0], [step, 1]])

    assert memory.rows(3).tolist() == [[1, 1], [2, 0], [2, 1]]
    assert memory.rows(2).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_memory_survives_a_restart_and_is_as_small_as_it_may_be(ledger):
    memory = PolicyMemory(3, ledger, Skips(ledger))
    for step in range(40):
        define(ledger, memory, step, [[step, 0], [step, 1]], max_ahead=2)

    again = PolicyMemory(3, ledger, Skips(ledger))

    # The next step, 40, is shown steps before 38; later ones at least those.
    for step in range(38, 41):
        assert again.rows(step).tolist() == memory.rows(step).tolist()
        assert again.rows(step).tolist()[-1] == [step - 1, 1]
        assert len(again.rows(step)) == 3
    assert len(ledger.memory()) <= 6


def test_a_step_that_remembers_nothing_changes_nothing(ledger):
    memory = PolicyMemory(4, ledger, Skips(ledger))
    define(ledger, memory, 0, [[1, 2]])
    define(ledger, memory, 1, None)

    assert memory.rows(2).tolist() == [[1, 2]]
    assert PolicyMemory(4, ledger, Skips(ledger)).rows(2).tolist() == [[1, 2]]
