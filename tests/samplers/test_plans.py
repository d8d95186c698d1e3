import numpy as np

from curator.samplers import Permutation
from curator.samplers._plans import PermutedPlan, SubsetPlan, compact


def test_part_of_a_permutation_is_a_plan():
    order = Permutation(100, 0, 0)
    plan = PermutedPlan(order, 10, 30)

    assert plan.num_examples == 20
    assert np.array_equal(plan.take(5, 20)[0], order.at(np.arange(15, 30)))


def test_subset_is_read_in_the_order_of_a_permutation_with_its_weights():
    ids = np.array([3, 5, 8, 13], np.int32)
    plan = SubsetPlan(
        ids=ids,
        order=Permutation(4, 0, 0),
        mean_weight=1.5,
        codes=np.array([0, 1, 1, 0], np.uint8),
        weights=np.array([1, 2], np.float32),
    )
    taken, weights = plan.take(0, 4)

    assert np.array_equal(taken, ids[Permutation(4, 0, 0).at(np.arange(4))])
    assert dict(zip(taken.tolist(), weights.tolist(), strict=True)) == {
        3: 1.0,
        5: 2.0,
        8: 2.0,
        13: 1.0,
    }


def test_ids_take_four_bytes_where_the_pool_allows_it():
    ids = np.array([0, 2**31 - 1])

    assert compact(ids, 2**31).dtype == np.int32
    assert compact(ids, 2**31 + 1).dtype == np.int64
    assert np.array_equal(compact(ids, 2**31), ids)
