"""The methods, one file each; their names are what ``method.name`` may be."""

from collections.abc import Mapping
from typing import get_args

from innerloop.fewshot.learners import gradient
from innerloop.fewshot.learners.base import EpisodicLearner, EpisodicNet, FewShotLearner, LearnsWhileReading
from innerloop.fewshot.learners.lstm_meta import LstmMeta
from innerloop.fewshot.learners.mann import Mann
from innerloop.fewshot.learners.matching import Matching
from innerloop.fewshot.learners.metanet import MetaNetworks
from innerloop.fewshot.learners.method import Method, Problem
from innerloop.fewshot.learners.prototypical import Prototypical
from innerloop.fewshot.learners.relation import Relation
from innerloop.fewshot.learners.siamese import Siamese

METHODS: Mapping[str, type[Method]] = {
    "siamese": Siamese,
    "matching": Matching,
    "prototypical": Prototypical,
    "relation": Relation,
    "lstm_meta": LstmMeta,
    "mann": Mann,
    "metanet": MetaNetworks,
    **dict.fromkeys(get_args(gradient.Name), gradient.Gradient),
}

__all__ = [
    "METHODS",
    "EpisodicLearner",
    "EpisodicNet",
    "FewShotLearner",
    "LearnsWhileReading",
    "Method",
    "Problem",
]
