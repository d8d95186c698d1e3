from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import draws, select

from curator.errors import FeatureError
from curator.policies import DomainQuota
from curator.policies._domain_quota import domain_counts
from curator.rng import Noise

NOISE = Noise(seed=0, step=0)
DOMAINS = np.array(["web"] * 20 + ["code"] * 6 + ["books"] * 2)
SCORES = np.arange(28.0)


def counts_of(selection, domains=DOMAINS):
    return dict(Counter(domains[selection.indices].tolist()))


def test_equal_shares_without_quotas():
    selection = select(DomainQuota(), SCORES, 6, domains=DOMAINS)

    assert counts_of(selection) == {"web": 2, "code": 2, "books": 2}
    assert selection.scores is None
    assert selection.weights.tolist() == [1] * 6
    assert selection.stats["num_domains"] == 3
    assert selection.stats["num_moved"] == 0


def test_shares_of_any_scale():
    policy = DomainQuota(quotas={"web": 30.0, "code": 20.0, "books": 10.0})

    assert counts_of(select(policy, SCORES, 6, domains=DOMAINS)) == {
        "web": 3,
        "code": 2,
        "books": 1,
    }


def test_places_of_a_scarce_domain_go_to_the_others_in_proportion():
    # Books have 2 of the 7 they should; the 5 go to web and code as 3 to 1.
    policy = DomainQuota(quotas={"web": 0.375, "code": 0.125, "books": 0.5})

    selection = select(policy, SCORES, 14, domains=DOMAINS)

    assert counts_of(selection) == {"web": 9, "code": 3, "books": 2}
    assert selection.stats["num_moved"] == pytest.approx(5)


def test_shares_of_absent_domains_go_to_those_present():
    policy = DomainQuota(quotas={"web": 1.0, "code": 1.0, "music": 2.0})

    selection = select(policy, SCORES, 8, domains=DOMAINS)

    assert counts_of(selection) == {"web": 4, "code": 4}
    assert selection.stats["num_moved"] == pytest.approx(4)


def test_domains_without_a_share_come_only_when_the_others_are_used_up():
    policy = DomainQuota(quotas={"books": 1.0})

    assert counts_of(select(policy, SCORES, 2, domains=DOMAINS)) == {"books": 2}
    assert counts_of(select(policy, SCORES, 8, domains=DOMAINS)) == {
        "books": 2,
        "web": 3,
        "code": 3,
    }


def test_quotas_of_domains_that_are_all_absent_are_equal_shares():
    policy = DomainQuota(quotas={"music": 1.0})

    counts = counts_of(select(policy, SCORES, 6, domains=DOMAINS))

    assert counts == {"web": 2, "code": 2, "books": 2}


def test_odd_places_go_to_each_domain_in_turn():
    got = Counter()
    for selection in draws(DomainQuota(), SCORES, 4, 90, domains=DOMAINS):
        counts = counts_of(selection)
        assert sorted(counts.values()) == [1, 1, 2]
        got[max(counts, key=counts.__getitem__)] += 1

    assert (
        sum((count - 30) ** 2 / 30 for count in got.values()) < 13.8
    )  # 99.9 %, 2 d.f.


def test_highest_scores_of_each_domain_highest_first():
    policy = DomainQuota(score="loss")

    selection = select(policy, SCORES, 6, domains=DOMAINS)

    assert selection.indices.tolist() == [27, 26, 25, 24, 19, 18]
    assert selection.scores.tolist() == [27, 26, 25, 24, 19, 18]


def test_without_a_score_every_example_of_a_domain_is_as_likely():
    counts = np.zeros(28)
    for selection in draws(DomainQuota(), SCORES, 6, 200, domains=DOMAINS):
        counts[selection.indices] += 1

    web = counts[:20]
    assert ((web - 20) ** 2 / (20 * 0.9)).sum() * 19 / 20 < 43.8  # 99.9 %, 19 d.f.
    assert counts[26:].tolist() == [200, 200]


def test_integers_are_named_by_their_digits():
    domains = np.array([3] * 5 + [-1] * 5 + [12] * 5)
    policy = DomainQuota(quotas={"3": 2.0, "-1": 1.0})

    counts = counts_of(select(policy, np.zeros(15), 3, domains=domains), domains)

    assert counts == {3: 2, -1: 1}


def test_candidates_without_a_domain_are_set_aside():
    domains = np.array(["web", None, "code", None, "web"], object)

    selection = select(DomainQuota(), np.zeros(5), 4, domains=domains)

    assert {0, 2, 4} < set(selection.indices.tolist())
    assert selection.stats["num_quarantined"] == 2
    assert selection.stats["num_topped_up"] == 1


def test_candidates_without_a_score_count_for_no_domain():
    scores = np.where(np.arange(28) < 26, SCORES, np.nan)  # no book has one
    policy = DomainQuota(score="loss")

    selection = select(policy, scores, 8, domains=DOMAINS)

    assert counts_of(selection) == {"web": 4, "code": 4}
    assert selection.stats["num_domains"] == 2


def test_no_usable_candidate_at_all():
    domains = np.array([None] * 4, object)

    selection = select(DomainQuota(), np.zeros(4), 2, domains=domains)

    assert selection.stats["num_topped_up"] == 2
    assert selection.stats["num_domains"] == 0


@settings(max_examples=80)
@given(st.data())
def test_counts_sum_up_and_are_within_one_of_the_quota_where_nothing_is_scarce(data):
    names = ["a", "b", "c", "d"][: data.draw(st.integers(1, 4))]
    shares = data.draw(
        st.lists(st.floats(0.01, 10), min_size=len(names), max_size=len(names))
    )
    total = data.draw(st.integers(1, 40))
    noise = Noise(seed=data.draw(st.integers(0, 50)), step=0)

    counts, num_moved = domain_counts(
        names,
        np.full(len(names), 40),
        dict(zip(names, shares, strict=True)),
        total,
        noise,
    )

    assert counts.sum() == total
    assert num_moved == pytest.approx(0, abs=1e-6)
    wanted = total * np.array(shares) / sum(shares)
    assert (np.abs(counts - wanted) < 1 + 1e-6).all()


@settings(max_examples=80)
@given(st.data())
def test_counts_never_exceed_what_there_is(data):
    sizes = np.array(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=6)))
    names = [str(rank) for rank in range(len(sizes))]
    quotas = {
        name: data.draw(st.sampled_from([0.0, 0.5, 1.0, 1e308])) for name in names
    }
    total = data.draw(st.integers(1, int(sizes.sum())))

    counts, _ = domain_counts(
        names, sizes, quotas if any(quotas.values()) else None, total, NOISE
    )

    assert counts.sum() == total
    assert (counts <= sizes).all()


def test_needs_the_column_and_the_score():
    assert DomainQuota(domain="language").needs == {"pool.language"}
    assert DomainQuota(score="grad_norm").needs == {
        "pool.domain",
        "learner.grad_norm",
    }


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        (np.zeros(28), "one integer or string per candidate.*; got float64"),
        (DOMAINS[1:], r"shape \(28,\); got <U5 of shape \(27,\)"),
        (np.array([1.5] * 28, object), "per candidate, .*; got a float"),
        (np.array([b"web"] * 28), "one integer or string per candidate.*; got |S3"),
    ],
)
def test_domains_of_another_kind_are_an_error(domains, message):
    with pytest.raises(FeatureError, match=message):
        select(DomainQuota(), np.zeros(28), 4, domains=domains)


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        ({"web": -1.0}, r"quotas\['web'\] must be finite and at least 0; got -1"),
        ({"web": math.nan}, r"quotas\['web'\] must be finite"),
        ({"web": math.inf}, r"quotas\['web'\] must be finite"),
        ({"web": 0.0}, "quotas must have a share above 0; got .*web"),
        ({}, "quotas must have a share above 0"),
    ],
)
def test_quotas_that_are_no_shares_are_an_error(quotas, message):
    with pytest.raises(ValueError, match=message):
        DomainQuota(quotas=quotas)


def test_loss_must_fit_the_score():
    with pytest.raises(ValueError, match="where loss is 'sigmoid'; got 'loss'"):
        DomainQuota(score="loss", loss="sigmoid")


def test_loss_without_a_score_is_an_error():
    with pytest.raises(ValueError, match="loss 'sigmoid' says what a score is made of"):
        DomainQuota(loss="sigmoid")


def test_a_domain_of_a_small_share_is_served_in_the_mean():
    labels = np.array(["a"] * 40 + ["b"] * 40 + ["c"] * 16)
    policy = DomainQuota(quotas={"a": 0.62, "b": 0.36, "c": 0.02})
    counts = np.zeros(3)
    for step in range(300):
        noise = Noise(seed=0, step=step)
        chosen = policy.select(np.arange(96), {"pool.domain": labels}, 16, noise)
        counts += [(labels[chosen.indices] == name).sum() for name in "abc"]

    # 16 times the shares, each within five standard deviations.
    np.testing.assert_allclose(counts / 300, [9.92, 5.76, 0.32], atol=0.15)
