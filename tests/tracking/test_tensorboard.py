"""The TensorBoard sink, read back with TensorBoard's own reader."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from innerloop.tracking.tensorboard import FOLDER, TensorBoardTracker


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / FOLDER))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def test_every_metric_is_written_at_its_step(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path, {"meta": {"inner_lr": 0.5}, "folder": tmp_path})
    tracker.log(1, {"meta/loss": 2.0, "algebra/query_loss": 3.0})
    tracker.log(2, {"meta/loss": 1.0})
    tracker.close()
    assert scalars(tmp_path, "meta/loss") == [(1, 2.0), (2, 1.0)]
    assert scalars(tmp_path, "algebra/query_loss") == [(1, 3.0)]
    (config,) = events(tmp_path).Tensors("config/text_summary")
    assert b'"inner_lr": 0.5' in config.tensor_proto.string_val[0]


def test_a_resumed_run_replaces_the_steps_that_were_lost(tmp_path: Path) -> None:
    lost = TensorBoardTracker(tmp_path, {})
    for step, loss in ((1, 5.0), (2, 4.0), (3, 99.0), (4, 99.0)):
        lost.log(step, {"meta/loss": loss})
    lost.close()
    resumed = TensorBoardTracker(tmp_path, {}, start_step=2)
    resumed.log(3, {"meta/loss": 3.0})
    resumed.close()
    assert scalars(tmp_path, "meta/loss") == [(1, 5.0), (2, 4.0), (3, 3.0)]
