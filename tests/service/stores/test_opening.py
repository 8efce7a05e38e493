"""Addresses of stores, right and wrong ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.service.stores.availability import Address
from innerloop.service.stores.opening import open_store
from service.stores.made_up import made_up


def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, file in (
        ("sqlite:///deep/er/jobs.db", tmp_path / "deep/er/jobs.db"),
        (f"sqlite:///{tmp_path}/50%20 ü?#.db", tmp_path / "50%20 ü?#.db"),
    ):
        store = open_store(url)
        job = store.create(made_up())
        assert store.get(job.id) == job
        store.close()
        assert file.is_file()


@pytest.mark.parametrize(
    "url", ["jobs.db", "", "mysql://somebody:geheim@host/jobs", "redis://:geheim@host", "SQLITE:///x.db"]
)
def test_an_address_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no address of a store; it begins with") as caught:
        open_store(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db"])
def test_a_sqlite_store_needs_a_file(url: str) -> None:
    with pytest.raises(InputError, match="names no file"):
        open_store(url)


def test_what_is_no_sqlite_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes\n" * 100)
    with pytest.raises(InputError, match="no SQLite file that can be used: file is not a database"):
        open_store(f"sqlite:///{path}")
    assert path.read_text() == "not a database, but somebody's notes\n" * 100


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the folder of the store .* cannot be made"):
        open_store(f"sqlite:///{tmp_path}/file/jobs.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:geheim@host:port/jobs",
        "mongodb://somebody:geheim@host:port/jobs",
        "mongodb://somebody:geheim@host/jobs?tls=true&tlsInsecure=true&tlsAllowInvalidCertificates=true",
        "mongodb://somebody:ge:heim@host/jobs",
        "mongodb://",
    ],
)
def test_an_address_with_a_mistake_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match="is no address of a") as caught:
        open_store(url)
    assert "heim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_mongo_database_may_come_apart_from_its_address(
    mongo_address: str, mongo_url: str
) -> None:
    name = mongo_url.rpartition("/")[2]
    with pytest.raises(InputError, match="is no address of a MongoDB database: No default database"):
        open_store(mongo_address)
    store = open_store(mongo_address, database=name)
    job = store.create(made_up())
    other = open_store(mongo_url, database="another")
    assert other.get(job.id) == job
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [("postgresql://host/jobs", "psycopg", "postgres"), ("mongodb://host/jobs", "pymongo", "mongo")],
)
def test_a_library_that_is_missing_is_named(
    url: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "innerloop.service.stores.mongo", raising=False)
    with pytest.raises(InputError, match=rf"'{library}' is not installed.*innerloop\[{extra}\]"):
        open_store(url)


def test_a_sqlite_store_needs_neither_driver(tmp_path: Path) -> None:
    code = (
        "import sys; from innerloop.service.stores.opening import open_store; "
        f"open_store('sqlite:///{tmp_path}/jobs.db').close(); "
        "sys.exit(bool({'psycopg', 'pymongo', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("password", ["geheim", "ge:he@im/x", "ge?heim", "ge%3Fheim", "[geheim"])
def test_an_address_is_shown_without_its_password(password: str) -> None:
    address = Address(f"postgresql://somebody:{password}@host:5/jobs?sslpassword=heimlich")
    assert str(address) == "postgresql://somebody:***@host:5/jobs?sslpassword=***"
    assert "heim" not in address.trouble(ValueError(f"bad {password}\nand heimlich"))


def test_an_address_without_a_password_is_shown_whole() -> None:
    for url in ("sqlite:////a/b:c@d.db", "mongodb://host:27017/jobs", "postgresql://somebody@host/jobs"):
        assert str(Address(url)) == url
