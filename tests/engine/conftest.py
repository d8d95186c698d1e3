"""A Ray cluster that the tests of this folder share."""

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """A head without room for scorers, and a node with some."""
    from ray.cluster_utils import Cluster
    from ray_worlds import NODE, add_node

    cluster = Cluster()
    add_node(cluster, include_dashboard=False, **{**NODE, "num_cpus": 0})
    add_node(cluster, **NODE)
    yield cluster
    cluster.shutdown()
