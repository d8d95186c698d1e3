"""A Ray cluster that the tests of this folder share."""

import pytest

# Ray gives a node 30 seconds to start, whatever else the machine has to do.
_TRIES = 3


@pytest.fixture(scope="session")
def ray_cluster():
    """A head without room for scorers, and a node with some."""
    cluster = _started()
    yield cluster
    cluster.shutdown()


def _started():
    from ray.cluster_utils import Cluster
    from ray_worlds import NODE

    for left in reversed(range(_TRIES)):
        cluster = Cluster()
        try:
            head = {**NODE, "num_cpus": 0}
            cluster.add_node(wait=True, include_dashboard=False, **head)
            cluster.add_node(wait=True, **NODE)
        except Exception as error:
            cluster.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise
        else:
            return cluster
    return None
