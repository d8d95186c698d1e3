"""What samplers check, and the shares and epochs that they decide without rounding."""

from __future__ import annotations

import math
from fractions import Fraction

from curator.errors import ConfigError
from curator.samplers._base import Run

__all__ = ["annealing_start", "check_order", "check_size", "exact"]


def exact(share: float) -> Fraction:
    """Returns the number that was written: a tenth for 0.1.

    The float nearest to a tenth is a little more than one, so that products with it
    round, or end, one too far for some sizes. Here no size is special.
    """
    return Fraction(str(float(share)))


def check_size(run: Run, fewest: int, why: str) -> None:
    """Checks that every epoch has room for a super-batch.

    Args:
        run: The run.
        fewest: The fewest examples that an epoch may have.
        why: What this follows from, for the message.

    Raises:
        ConfigError: A super-batch may be larger than an epoch, or has no examples.
    """
    if not 1 <= run.super_batch_size <= fewest:
        msg = (
            f"super_batch_size: in [1, {fewest}], as {why}; got {run.super_batch_size}"
        )
        raise ConfigError(msg)


def annealing_start(anneal: float, run: Run) -> int | None:
    """Returns the first of the last epochs, the share ``anneal`` of them; None if 0.

    ``ceil((1 - anneal) * num_epochs)``, in integers: the share is the decimal number
    that was written, and no float is compared.

    Raises:
        ConfigError: There is a share to anneal, and it is not known of how many epochs.
    """
    if anneal == 0:
        return None
    if run.num_epochs is None:
        msg = (
            f"anneal: the last {anneal:g} of the epochs are special, so the sampler "
            "must know how many there are: set num_epochs, or anneal = 0.0"
        )
        raise ConfigError(msg)
    return math.ceil((1 - exact(anneal)) * run.num_epochs)


def check_order(epoch: int, following: int) -> None:
    """Checks that an epoch is planned in its turn.

    Raises:
        ValueError: It is not the next one.
    """
    if epoch != following:
        msg = (
            "epochs are planned from losses, in order and each once: the next is "
            f"{following}; got {epoch}"
        )
        raise ValueError(msg)
