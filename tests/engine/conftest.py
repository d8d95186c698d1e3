"""A Ray cluster that the tests of this folder share."""

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """A head without room for scorers, and a node with some."""
    from ray.cluster_utils import Cluster
    from ray_worlds import NODE

    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
    )
    cluster.add_node(wait=True, **NODE)
    yield cluster
    cluster.shutdown()
