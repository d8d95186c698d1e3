"""GPUs as Ray shares them out. Ray is told of two; what is on them, it does not ask."""

import pyarrow as pa
import pytest
import towers
import worlds
from ray_worlds import NODE, add_node, config, served

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture
def two_gpus(ray_cluster):
    node = add_node(ray_cluster, num_gpus=2, **NODE)
    yield {"address": ray_cluster.address}
    ray_cluster.remove_node(node)


@pytest.fixture
def pool(tmp_path):
    pairs = worlds.pairs(400)
    path = tmp_path / "pairs.arrow"
    with pa.ipc.new_file(path, pairs.schema) as writer:
        writer.write_table(pairs)
    return path


@pytest.mark.parametrize(
    ("num_gpus", "expected"), [(1.0, ["0", "1"]), (0.5, ["0", "0", "1", "1"])]
)
def test_scorers_have_the_gpus_to_themselves_or_share_them(
    tmp_path, two_gpus, pool, num_gpus, expected
):
    ray = {**two_gpus, "num_gpus": num_gpus, "min_scorers": len(expected)}
    with served(config(tmp_path, "ray", ray=ray), pool) as service:
        session = service.open("s")
        model = towers.build()
        session.publish(model)
        for batch in session.batches():  # until the last scorer is there, too
            session.report(batch)
            session.publish(model)
            if len(gpus_seen(tmp_path)) == len(expected):
                break
    assert gpus_seen(tmp_path) == expected


def gpus_seen(folder):
    """Returns the GPUs that each scorer may see, in their order."""
    return sorted(file.read_text() for file in (folder / "orders").glob("pid-*"))
