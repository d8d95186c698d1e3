"""What is kept between steps and runs about the examples of a pool."""

from curator.store._features import FeatureStore

__all__ = ["FeatureStore"]
