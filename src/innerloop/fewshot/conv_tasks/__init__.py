"""Conv4 classifiers of many tasks in one call, with derivatives written by hand."""

from innerloop.fewshot.conv_tasks.in_parts import InParts
from innerloop.fewshot.conv_tasks.learner import ConvTasksLearner

__all__ = ["ConvTasksLearner", "InParts"]
