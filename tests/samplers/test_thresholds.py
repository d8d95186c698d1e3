import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.samplers._thresholds import mean_threshold, percentile_thresholds

LOSSES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200)


@pytest.mark.parametrize("num_losses", [1, 3, 50_000, 1_280_000, 6_000_000])
@pytest.mark.parametrize("value", [np.log(10), np.log(1000), 3.0, 0.0, 1e-30, 7e20, -2])
def test_equal_losses_are_never_below_their_mean(num_losses, value):
    losses = np.full(num_losses, value, np.float32)
    (threshold,) = mean_threshold(losses)

    assert not (losses < threshold).any()


@pytest.mark.parametrize("value", [np.log(10), 3.0, 1000.0])
def test_losses_that_differ_by_rounding_are_never_below_their_mean(value):
    losses = np.full(1000, value, np.float32)
    losses[::2] = np.nextafter(losses[0], np.float32(0))
    (threshold,) = mean_threshold(losses)

    assert not (losses < threshold).any()


def test_mean_in_single_precision_would_be_above_equal_losses():
    # What the tolerance is for: with it off, this prunes a pool never trained on.
    losses = np.full(50_000, np.log(10), np.float32)

    assert (losses < losses.mean()).all()


@given(losses=LOSSES)
def test_losses_clearly_below_the_mean_are_below(losses):
    losses = np.array(losses, np.float32)
    mean = losses.mean(dtype=np.float64)
    (threshold,) = mean_threshold(losses)
    clear = abs(losses - mean) > 2e-6 * max(1, abs(mean))

    assert np.array_equal((losses < threshold)[clear], (losses < mean)[clear])
    assert not (losses >= mean)[losses < threshold].any()


def test_losses_not_seen_are_not_counted():
    losses = np.array([np.nan, 1, 3, np.nan], np.float32)

    assert mean_threshold(losses) == pytest.approx([2], rel=1e-5)
    assert percentile_thresholds(losses, [50.0]) == [2.0]
    assert mean_threshold(np.full(5, np.nan, np.float32)) == []
    assert percentile_thresholds(np.full(5, np.nan, np.float32), [50.0]) == []


@given(
    losses=LOSSES,
    percentiles=st.lists(st.integers(1, 99).map(float), min_size=1, unique=True),
)
def test_percentiles_are_those_of_numpy(losses, percentiles):
    losses = np.array(losses, np.float32)
    expected = np.percentile(losses.astype(np.float64), sorted(percentiles))
    before = losses.tobytes()

    assert percentile_thresholds(losses, sorted(percentiles)) == pytest.approx(
        expected, rel=1e-6, abs=1e-30
    )
    assert losses.tobytes() == before


def test_percentiles_at_a_loss_are_that_loss():
    # 101 losses: rank 20 and 85 exactly, whatever floats make of 0.85 * 100.
    losses = np.arange(101, dtype=np.float32) ** 2

    assert percentile_thresholds(losses, [20.0, 85.0]) == [20.0**2, 85.0**2]
