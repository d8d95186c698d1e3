"""What a policy ranks by: scores of losses, alone and jointly over pairs; numpy only.

Higher is wanted more. Shapes: ``B`` is the super-batch size, ``D`` the embedding width.
"""

from __future__ import annotations

from curator.scores._joint import JointScores, PairScores
from curator.scores._losses import PAIR_COSTS, PairLoss
from curator.scores._pairwise import PairModel, pair_models, usable_rows
from curator.scores._scores import SCORES, PairScoreName, Score, ScoreName
from curator.scores._sharded import LocalShards, PairShard, ShardedScores, shard_rows
from curator.scores._sigmoid import SigmoidCosts
from curator.scores._softmax import SoftmaxCosts

__all__ = [
    "PAIR_COSTS",
    "SCORES",
    "JointScores",
    "LocalShards",
    "PairLoss",
    "PairModel",
    "PairScoreName",
    "PairScores",
    "PairShard",
    "Score",
    "ScoreName",
    "ShardedScores",
    "SigmoidCosts",
    "SoftmaxCosts",
    "pair_models",
    "shard_rows",
    "usable_rows",
]
