"""A map-style dataset, where loader workers that are spawned can import it."""

from torch.utils.data import Dataset


class Squares(Dataset[tuple[int, int]]):
    """A map-style dataset of one's own: ids and their squares."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return index, index**2
