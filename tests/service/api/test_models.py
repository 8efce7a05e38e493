"""Downloads of trained models: the files of the job's own folder and nothing else."""

import io
import os
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, Outcome
from service.api.standing import RESULTS, a_model, running

FILES = {"adapter_config.json": b"{}", "weights/part.safetensors": os.urandom(3 * 2**20 + 17), "empty": b""}


def finished(store: JobStore, folder: Path, kind: Kind = Kind.ADAPTATION) -> str:
    """A completed job with a model; gives its id."""
    claim = running(store, kind)
    model = a_model(folder, claim, FILES)
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[kind], model_path=model))
    return claim.id


def content(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("kind", Kind)
def test_a_model_comes_as_a_zip_of_its_files(
    client: TestClient, store: JobStore, folder: Path, kind: Kind
) -> None:
    identifier = finished(store, folder, kind)
    answer = client.get(f"/api/training/{kind}/{identifier}/model")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{identifier}.zip"'
    assert content(answer.content) == FILES


def test_of_a_run_the_newest_checkpoint_comes(client: TestClient, store: JobStore, folder: Path) -> None:
    claim = running(store)
    run = folder / claim.id / "run"
    for step in (1, 2):
        (run / f"step-{step}").mkdir(parents=True)
        (run / f"step-{step}" / "weights").write_text(str(step))
    (run / "latest").symlink_to("step-2")
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[Kind.META], model_path=f"{claim.id}/run"))
    answer = client.get(f"/api/training/meta-tasks/{claim.id}/model")
    assert content(answer.content) == {"weights": b"2"}


def test_no_link_leads_a_download_out_of_the_folder(
    client: TestClient, store: JobStore, folder: Path, tmp_path: Path
) -> None:
    identifier = finished(store, folder)
    (tmp_path / "secret").write_text("of another")
    model = folder / identifier / "model"
    (model / "file").symlink_to(tmp_path / "secret")
    (model / "folder").symlink_to(tmp_path)
    answer = client.get(f"/api/training/adaptations/{identifier}/model")
    assert content(answer.content) == FILES


@pytest.mark.parametrize(
    "path",
    ["{outside}", "../../outside", "{other}/model", "{id}/../{other}/model", "{id}/latest-outside", "."],
)
def test_no_place_beyond_the_jobs_own_folder_is_sent_whatever_the_store_says(
    client: TestClient, store: JobStore, folder: Path, tmp_path: Path, path: str
) -> None:
    other, claim = finished(store, folder), running(store)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("of another")
    (folder / claim.id / "latest-outside").mkdir(parents=True)
    (folder / claim.id / "latest-outside" / "latest").symlink_to(tmp_path / "outside")
    given = path.format(outside=tmp_path / "outside", other=other, id=claim.id)
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[Kind.META], model_path=given))
    answer = client.get(f"/api/training/meta-tasks/{claim.id}/model")
    assert answer.status_code == 409
    assert answer.json() == {"detail": "the trained model's folder is not there any more"}


def test_a_model_that_was_removed_is_not_there_any_more(
    client: TestClient, store: JobStore, folder: Path
) -> None:
    claim = running(store)
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[Kind.META], model_path=f"{claim.id}/model"))
    assert client.get(f"/api/training/meta-tasks/{claim.id}/model").status_code == 409


def test_a_file_of_any_size_finds_room_in_the_archive(
    client: TestClient, store: JobStore, folder: Path
) -> None:
    raw = client.get(f"/api/training/adaptations/{finished(store, folder)}/model").content
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        # Sizes of 8 bytes in the entry's header: an entry that grows beyond 2 GiB cannot be given them later.
        for entry in archive.infolist():
            header = raw[entry.header_offset : entry.header_offset + 30]
            assert int.from_bytes(header[28:30], "little") >= 20
