"""An evaluation made of plain numbers, for the tests of what is worked out and shown."""

from dataclasses import replace

from innerloop.rl.artifacts import Training
from innerloop.rl.records import HINDSIGHT, RANDOM, SCRATCH, Evaluation, Measured

EPISODES = (0, 1, 4)
META, TUNED = "fomaml", "tuned <b>"


def adapting(name: str, way: str, curves: list[list[list[float]]]) -> Measured:
    """A policy with returns by cluster, seed and number of episodes; its violations are a hundredth."""
    slow = [[[-value / 100 for value in curve] for curve in cluster] for cluster in curves]
    return Measured(name, Training(way, 10, 1000, 60.4), curves, slow, 0.125)  # type: ignore[arg-type]


def level(name: str, *returns: float) -> Measured:
    """A baseline with one return a cluster."""
    return Measured(
        name, None, [[[value]] for value in returns], [[[-value / 100]] for value in returns], 0.0
    )


def made_up() -> Evaluation:
    """Three clusters, two seeds; the mean curves are -10 -6 -4 (meta), -14 -9 -6 (tuned), -30 -20 -10."""
    return Evaluation(
        family="kubernetes_scaling",
        split="test",
        clusters=3,
        seeds=2,
        episodes=EPISODES,
        judged_on=5,
        methods=(
            adapting(
                META,
                "meta",
                [
                    [[-9.0, -5.0, -3.0], [-11.0, -5.0, -3.0]],
                    [[-10.0, -6.0, -4.0], [-10.0, -6.0, -4.0]],
                    [[-10.0, -7.0, -4.0], [-10.0, -7.0, -6.0]],
                ],
            ),
            adapting(TUNED, "transfer", [[[-14.0, -9.0, value]] * 2 for value in (-4.0, -6.0, -8.0)]),
            adapting(SCRATCH, "ppo", [[[-30.0, -20.0, value]] * 2 for value in (-8.0, -10.0, -12.0)]),
            level("static", -7.0, -8.0, -9.0),
            level(RANDOM, -40.0, -44.0, -48.0),
            level(HINDSIGHT, -3.0, -4.0, -5.0),
        ),
        command="innerloop rl evaluate --model 'a & b=x'",
    )


def without(name: str) -> Evaluation:
    """The same evaluation less a method."""
    whole = made_up()
    return replace(whole, methods=tuple(m for m in whole.methods if m.name != name))
