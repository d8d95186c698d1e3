from curator.samplers._base import Sampler
from curator.samplers._uniform import Uniform
__all__ = ["Sampler", "Uniform"]
