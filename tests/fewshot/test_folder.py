"""A user's own images: every way a folder may say its split, and every way it may be wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewshot.pictures import class_folders, picture
from innerloop.core.errors import InputError
from innerloop.fewshot.data.folder import load_classes, load_flat, load_folder

SIX = dict.fromkeys("abcdef", 2)


def test_subfolders_are_the_split(tmp_path: Path) -> None:
    for part, names in (("train", "abc"), ("val", "d"), ("test", "ef")):
        class_folders(tmp_path / part, dict.fromkeys(names, 2))
    splits = load_folder(tmp_path, 8)
    assert splits.train.classes == ("a", "b", "c")
    assert splits.get("validation").classes == ("d",)
    assert splits.get("test").classes == ("e", "f")
    assert splits.train.images.shape == (6, 1, 8, 8)
    assert splits.train.images[3].unique().tolist() == [11]


def test_csv_files_are_the_split(tmp_path: Path) -> None:
    for number, (part, label) in enumerate((("train", "a"), ("train", "b"), ("val", "c"), ("test", "d"))):
        picture(tmp_path / "images" / f"{number}.png", number)
        listing = tmp_path / f"{part}.csv"
        rows = listing.read_text() if listing.exists() else "filename,label\n"
        listing.write_text(f"{rows}{number}.png,{label}\n")
    splits = load_folder(tmp_path, 8)
    assert (splits.train.classes, splits.get("validation").classes) == (("a", "b"), ("c",))
    assert splits.get("test").images.unique().tolist() == [3]


def test_a_json_file_is_the_split(tmp_path: Path) -> None:
    class_folders(tmp_path, SIX)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["b", "a"], "val": ["c"]}))
    splits = load_folder(tmp_path, 8)
    assert splits.train.classes == ("b", "a")
    assert splits.get("validation").classes == ("c",)
    assert splits.test is None


def test_without_a_split_classes_are_drawn_by_the_seed(tmp_path: Path) -> None:
    class_folders(tmp_path, {f"class {number:02d}": 1 for number in range(25)})
    splits, again, other = (load_folder(tmp_path, 8, seed=seed) for seed in (0, 0, 1))
    sizes = (len(splits.train), len(splits.get("validation")), len(splits.get("test")))
    assert sizes == (16, 4, 5)
    assert splits.train.classes == again.train.classes != other.train.classes


def test_images_are_resized_and_converted(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", (255, 0, 0), size=40)
    picture(tmp_path / "a" / "1.jpg", (0, 0, 255), size=20)
    assert load_folder(tmp_path, 8).train.images.shape == (2, 3, 8, 8)
    assert load_folder(tmp_path, 8, channels=1).train.images.shape == (2, 1, 8, 8)
    assert load_classes(tmp_path, 16, 3).images.shape == (2, 3, 16, 16)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 2})
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "._00.png").write_bytes(b"left by a file manager")
    (tmp_path / ".hidden").mkdir()
    assert load_folder(tmp_path, 8).train.counts.tolist() == [2]


def test_a_flat_folder_is_read_by_path(tmp_path: Path) -> None:
    class_folders(tmp_path, {"b": 1, "a": 2})
    files, images = load_flat(tmp_path, 8, 1)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["a/00.png", "a/01.png", "b/00.png"]
    assert images.dtype == torch.uint8
    assert images.shape == (3, 1, 8, 8)


def _missing_train(folder: Path) -> None:
    class_folders(folder / "test", SIX)


def _mixed(folder: Path) -> None:
    class_folders(folder, {"a": 1})
    picture(folder / "a" / "1.png", (1, 2, 3))


def _unreadable(folder: Path) -> None:
    class_folders(folder, {"a": 1})
    (folder / "a" / "1.png").write_bytes(b"no image")


def _cut_short(folder: Path) -> None:
    file = picture(folder / "a" / "0.png", (1, 2, 3), size=64)
    file.write_bytes(file.read_bytes()[:90])


def _empty_class(folder: Path) -> None:
    class_folders(folder, {"a": 1})
    (folder / "b").mkdir()


def _empty(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


def _split(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        class_folders(folder, SIX)
        (folder / "splits.json").write_text(text)

    return damage


def _listing(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "train.csv").write_text(text)

    return damage


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        pytest.param(lambda folder: folder.rmdir(), "there is no folder", id="no folder"),
        pytest.param(_empty, "has no folder of images; give each class a folder", id="empty"),
        pytest.param(_missing_train, "has a 'test' split but no 'train' split; add it", id="missing train"),
        pytest.param(_mixed, "mixes colour .*1.png.* and greyscale images .*00.png", id="mixed"),
        pytest.param(_unreadable, "cannot read the image .*1.png: it is not an image", id="unreadable"),
        pytest.param(_cut_short, "cannot read the image .*0.png", id="cut short"),
        pytest.param(_empty_class, "class 'b' of .* holds no image", id="empty class"),
        pytest.param(_split("{"), "splits.json is damaged", id="split: no JSON"),
        pytest.param(_split("[]"), "must hold", id="split: a list"),
        pytest.param(
            _split('{"train": ["z"]}'), "names the class 'z', which has no folder", id="split: class"
        ),
        pytest.param(_split('{"train": ["a"], "dev": ["b"]}'), "names a split 'dev'", id="split: name"),
        pytest.param(_split('{"val": ["a"]}'), "has no 'train' split", id="split: no train"),
        pytest.param(
            _split('{"train": ["a"], "test": ["a"]}'), "'a' is in both train and test", id="split: shared"
        ),
        pytest.param(_listing("file,class\n"), "lacks the columns 'filename,label'", id="csv: columns"),
        pytest.param(_listing("filename,label\n"), "train.csv lists no image", id="csv: empty"),
        pytest.param(
            _listing("filename,label\nx.png,a\n"), "train.csv, line 2: there is no image", id="csv: image"
        ),
    ],
)
def test_a_folder_of_another_shape_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], line: str
) -> None:
    folder = tmp_path / "images of mine"
    folder.mkdir()
    damage(folder)
    with pytest.raises(InputError, match=line) as refusal:
        load_folder(folder, 8)
    assert "\n" not in str(refusal.value)
