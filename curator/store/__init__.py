"""What is kept between steps and runs about the examples of a pool."""

from curator.store._embeddings import EmbeddingStore

__all__ = ["EmbeddingStore"]
