"""The bilevel engine: tasks, learners, inner rules, meta-gradients, the meta-trainer. It knows no domain."""
