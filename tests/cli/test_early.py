"""Destinations are looked at before the work, and nothing is left where they were."""

import os
from pathlib import Path

import pytest

from appcadence.cli.options import check_directories, check_files
from appcadence.errors import AppcadenceError


@pytest.mark.parametrize("check", [check_files, check_directories])
def test_a_destination_is_tried_where_it_would_be_made(tmp_path, check):
    (tmp_path / "file").write_text("x")
    check(out=tmp_path / "new", html=tmp_path / "not" / "yet" / "there", log=None)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", Path("/proc/new/file")):
        with pytest.raises(AppcadenceError, match="choose another") as error:
            check(out=tmp_path / "new", html=path)
        assert error.value.argument == "html"


def test_what_is_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    check_files(html=tmp_path / "file")
    check_directories(out=tmp_path)
    for path, kind in ((tmp_path, "a directory"), (tmp_path / "pipe", "a pipe")):
        with pytest.raises(AppcadenceError, match=f"is {kind}") as error:
            check_files(html=path)
        assert error.value.argument == "html"
    for path in (tmp_path / "file", tmp_path / "pipe"):
        with pytest.raises(AppcadenceError, match="is not a directory; name a directory") as error:
            check_directories(out=path)
        assert error.value.argument == "out"
