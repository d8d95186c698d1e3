"""temporary"""
import dataclasses
import numpy as np
from curator.rng import generator
from curator.types import SuperBatch

@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    num_examples: int
    super_batch_size: int
    seed: int
    @property
    def num_steps_per_epoch(self) -> int:
        return self.num_examples // self.super_batch_size
    def super_batch(self, step: int) -> SuperBatch:
        e, k = divmod(step, self.num_steps_per_epoch)
        p = generator(self.seed, "p", epoch=e).permutation(self.num_examples)
        B = self.super_batch_size
        return SuperBatch(step, e, p[k*B:(k+1)*B].astype(np.int64))
