"""The install commands in messages must work in the environment that prints them."""

import json
import shlex
from importlib.metadata import distribution
from pathlib import Path

import pytest

from appcadence import _extras

PYTHON = "/opt/venv/bin/python"


class Installed:
    """How this package was installed, by its direct_url.json (None = from the index)."""

    def __init__(self, record):
        self.record = record
        self.requires = ["numpy>=2.0", 'mlflow>=3.1; extra == "train"', "scipy; extra == 'train'"]

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self.record is None else json.dumps(self.record)


@pytest.fixture
def said(monkeypatch):
    def command(record):
        monkeypatch.setattr(_extras, "distribution", lambda name: Installed(record))
        monkeypatch.setattr(_extras.sys, "executable", PYTHON)
        return shlex.split(_extras.install_command("train"))

    return command


@pytest.mark.parametrize("editable", [True, False])
def test_a_checkout_is_installed_from_where_it_is(tmp_path, said, editable):
    checkout = tmp_path / "a place [of mine]"
    checkout.mkdir()
    record = {"url": checkout.as_uri(), "dir_info": {"editable": editable}}
    flag = ["-e"] if editable else []
    assert said(record) == [PYTHON, "-m", "pip", "install", *flag, f"{checkout}[train]"]


def test_in_the_checkout_itself_paths_are_short(tmp_path, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_extras, "distribution", lambda name: Installed(record))
    monkeypatch.setattr(_extras.sys, "executable", str(Path.cwd() / ".venv/bin/python"))
    record = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    assert _extras.install_command("spark") == ".venv/bin/python -m pip install -e '.[spark]'"


def test_a_wheel_is_installed_from_its_file_while_that_is_there(tmp_path, said):
    wheel = tmp_path / "appcadence-1-py3-none-any.whl"
    wheel.touch()
    record = {"url": wheel.as_uri(), "archive_info": {}}
    assert said(record)[-1] == f"{wheel}[train]"
    wheel.unlink()
    assert said(record)[-2:] == ["mlflow>=3.1", "scipy"]


def test_what_cannot_be_installed_from_its_origin_again_names_the_packages(said):
    """No name of our own is asked of an index that may not have it."""
    packages = [PYTHON, "-m", "pip", "install", "mlflow>=3.1", "scipy"]
    assert said(None) == said({"url": "https://index.example/appcadence.whl"}) == packages


def test_every_extra_has_packages_to_name():
    requires = distribution("appcadence").requires
    for extra in ("cli", "train", "spark"):
        assert any(f'extra == "{extra}"' in line for line in requires), extra


def test_sources_that_are_not_installed_are_installed_from_where_they_are(said, monkeypatch, tmp_path):
    said(None)
    monkeypatch.chdir(tmp_path)

    def missing(name):
        raise _extras.PackageNotFoundError(name)

    monkeypatch.setattr(_extras, "distribution", missing)
    root = Path(__file__).resolve().parents[1]
    command = shlex.split(_extras.install_command("cli"))
    assert command == [PYTHON, "-m", "pip", "install", "-e", f"{root}[cli]"]
