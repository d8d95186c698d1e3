"""Which examples are hard negatives of each other, and parts that keep them together.

Shapes: ``N`` is the number of examples, ``D`` the width of an embedding, ``m`` the size
of a window of ranks, ``E`` the number of directed edges.
"""

from __future__ import annotations

import dataclasses
import heapq
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int64

from curator.progress import Progress
from curator.rng import mix
from curator.vectors import top_neighbours

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "NegativeGraph",
    "balance",
    "metis",
    "mutual_graph",
    "part_by_growing",
    "part_by_metis",
]

# Queries whose neighbours are looked for at once, and neighbours of all of them.
_BLOCK = 4096
_MAX_FOUND = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NegativeGraph:
    """An undirected graph, each edge in both directions; no edge from a node to itself.

    Attributes:
        starts: Where the neighbours of each example start.
        neighbours: Those of the first, of the second ..., each in ascending order.
    """

    starts: Int64[np.ndarray, " stops"]
    neighbours: Int64[np.ndarray, " E"]

    @property
    def num_nodes(self) -> int:
        """How many examples there are."""
        return len(self.starts) - 1

    def of(self, node: int) -> Int64[np.ndarray, " _"]:
        """Returns the neighbours of an example."""
        return self.neighbours[self.starts[node] : self.starts[node + 1]]

    def within(self, parts: Int64[np.ndarray, " N"]) -> float:
        """Returns the share of the edges inside parts; 0 where there are no edges."""
        owners = np.repeat(np.arange(self.num_nodes), np.diff(self.starts))
        same = parts[owners] == parts[self.neighbours]
        return float(same.mean()) if len(same) else 0.0


def mutual_graph(
    queries: Float[np.ndarray, "N D"],
    targets: Float[np.ndarray, "N D"],
    *,
    skip: int,
    window: int,
    labels: Int64[np.ndarray, " N"] | None = None,
) -> NegativeGraph:
    """Returns the edges between examples that are hard negatives of each other.

    Of the targets of all other examples, ranked by similarity to a query, the first
    ``skip`` are likely to be right answers too; the next ``window`` are the query's
    hard negatives. An edge is there if that holds in both directions.

    Args:
        queries: A teacher's embeddings, of length one.
        targets: Those of the right answers.
        skip: How many ranks are left out. An example's own target has no rank.
        window: How many come after them.
        labels: Examples of one label have right answers in common, and no rank for
            each other.
    """
    size = len(queries)
    wanted = min(skip + window, size - 1)
    # So many more than the wanted ones may be of the query's own label.
    spare = 1 if labels is None else int(np.bincount(labels).max())
    num_found = min(wanted + spare, size)
    block = max(min(_BLOCK, _MAX_FOUND // num_found), 1)
    edges: list[np.ndarray] = []
    own_labels = np.arange(size) if labels is None else labels
    with Progress("b3: neighbours", size, "examples") as progress:
        for start in range(0, size, block):
            rows = np.arange(start, min(start + block, size))
            found = top_neighbours(
                queries[rows].astype(np.float32, copy=False),
                targets.astype(np.float32, copy=False),
                num_found,
            )
            is_ranked = own_labels[found] != own_labels[rows, None]
            ranks = np.cumsum(is_ranked, axis=1)
            in_window = is_ranked & (ranks > skip) & (ranks <= skip + window)
            row, column = np.nonzero(in_window)
            edges.append(rows[row] * size + found[row, column])
            progress.advance(len(rows))
    forward = np.sort(np.concatenate(edges))
    backward = np.sort(forward % size * size + forward // size)
    places = np.searchsorted(backward, forward)
    places = np.minimum(places, len(backward) - 1)
    mutual = forward[backward[places] == forward] if len(forward) else forward
    starts = np.searchsorted(mutual, np.arange(size + 1) * size)
    return NegativeGraph(starts, mutual % size)


def metis() -> ModuleType | None:
    """Returns the package of METIS, if it is installed."""
    try:
        import pymetis
    except ImportError:
        return None
    return pymetis


def part_by_metis(
    graph: NegativeGraph, num_parts: int, seed: int
) -> Int64[np.ndarray, " N"]:
    """Returns the part of each example, with few edges between parts; about equal."""
    pymetis: Any = metis()
    if num_parts == 1:
        return np.zeros(graph.num_nodes, np.int64)
    width = pymetis.zero_copy_dtype()
    adjacency = pymetis.CSRAdjacency(
        adj_starts=graph.starts.astype(width), adjacent=graph.neighbours.astype(width)
    )
    found: Any = pymetis.part_graph(
        num_parts, adjacency=adjacency, options=pymetis.Options(seed=seed % (1 << 31))
    )
    parts = np.empty(graph.num_nodes, np.int64)
    parts[:] = found.vertex_part  # as wide, but of another name: long long
    return parts


def part_by_growing(
    graph: NegativeGraph, part_size: int, seed: int
) -> Int64[np.ndarray, " N"]:
    """Returns parts that are grown one after the other, each to its full size.

    The first example of a part is the free one with the fewest neighbours; then, each
    time, the free example with the most edges into the part comes in. Examples without
    neighbours fill up at the end.
    """
    size = graph.num_nodes
    parts = np.full(size, -1)
    ties = mix(np.arange(size, dtype=np.uint64) + np.uint64(seed % (1 << 62)))
    degrees = np.diff(graph.starts)
    order = np.lexsort((ties, degrees, degrees == 0))
    ranks = np.empty(size, np.int64)
    ranks[order] = np.arange(size)
    cursor = 0
    for part in range(-(-size // part_size)):
        num_edges: dict[int, int] = {}
        frontier: list[tuple[int, int, int]] = []
        for _ in range(min(part_size, size - part * part_size)):
            # An entry that is out of date has fewer edges than a later one.
            while frontier and parts[frontier[0][2]] >= 0:
                heapq.heappop(frontier)
            if frontier:
                node = heapq.heappop(frontier)[2]
            else:
                while parts[order[cursor]] >= 0:
                    cursor += 1
                node = int(order[cursor])
            parts[node] = part
            for other in graph.of(node).tolist():
                if parts[other] < 0:
                    num_edges[other] = num_edges.get(other, 0) + 1
                    entry = (-num_edges[other], int(ranks[other]), other)
                    heapq.heappush(frontier, entry)
    return parts


def balance(
    graph: NegativeGraph, parts: Int64[np.ndarray, " N"], part_size: int
) -> Int64[np.ndarray, " N"]:
    """Returns parts of exactly ``part_size`` examples, but for one of what is left.

    Out of a part that is too large come the examples with the fewest edges in it. Each
    goes to the part with room that it has the most edges into.

    Args:
        graph: The edges.
        parts: About equal parts, from 0; as many as are wanted, or fewer.
        part_size: Their size.
    """
    num_parts = -(-len(parts) // part_size)
    parts = parts.copy()
    owners = np.repeat(np.arange(len(parts)), np.diff(graph.starts))
    same = parts[owners] == parts[graph.neighbours]
    inside = np.bincount(owners[same], minlength=len(parts))
    sizes = np.bincount(parts, minlength=num_parts)
    capacities = np.full(num_parts, part_size)
    capacities[np.argmin(sizes)] = len(parts) - (num_parts - 1) * part_size
    # Within each part those with the most edges first.
    order = np.lexsort((np.arange(len(parts)), -inside, parts))
    starts = np.cumsum(sizes) - sizes
    ranks = np.arange(len(parts)) - starts[parts[order]]
    moved = order[ranks >= capacities[parts[order]]]
    room = np.maximum(capacities - sizes, 0)
    parts[moved] = -1
    for node in moved.tolist():
        near = parts[graph.of(node)]
        near = near[near >= 0]
        counts = np.bincount(near[room[near] > 0], minlength=num_parts)
        best = int(np.argmax(counts if counts.any() else room))
        parts[node] = best
        room[best] -= 1
    return parts
