"""Atomic writing of files: names, threads, processes, temporary files."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keras_resnet import files


def test_many_threads_write_one_file(tmp_path):
    start, errors = threading.Barrier(4), []

    def write(number):
        try:
            start.wait()
            for _ in range(50):
                files.write_text(tmp_path / "x.json", str(number) * 100)
                files.remove_leftovers(tmp_path)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (tmp_path / "x.json").read_text() in [str(number) * 100 for number in range(4)]
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["x" * 247 + ".keras", "ü" * 124 + ".json", "x." + "ü" * 126])
def test_names_as_long_as_the_file_system_allows(name, tmp_path):
    assert len(os.fsencode(name)) >= 252
    files.write_text(tmp_path / name, "written")
    assert (tmp_path / name).read_text() == "written"
    if name[-5:].isascii():
        assert files.temporary_path(tmp_path / name).suffix == os.path.splitext(name)[1]


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    files.write_text(tmp_path / "x.txt", "written")
    assert done == ["fsync", "replace"]


def test_leftovers_of_ended_processes_are_removed(tmp_path):
    program = """
import sys, time
import files  # without the package, which takes seconds to import
with files.replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "x.txt"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parent)},
    ) as other:
        other.stdout.readline()
        (theirs,) = tmp_path.iterdir()
        ours = files.temporary_path(tmp_path / "x.txt")
        ours.write_text("half")
        # From a process in another container with the same process id.
        before = tmp_path / f".{os.getpid()}.0123abcd-0.x.txt"
        before.write_text("half")
        (tmp_path / ".hidden").write_text("somebody's")
        files.remove_leftovers(tmp_path)
        assert set(tmp_path.iterdir()) == {theirs, ours, tmp_path / ".hidden"}
        other.kill()
    files.remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {ours, tmp_path / ".hidden"}


@pytest.mark.parametrize("place", ["no folder/x.txt", "file/x.txt", "folder"])
def test_errors_name_what_was_to_be_written(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as error:
        files.write_text(tmp_path / place, "written")
    assert error.value.filename == str(tmp_path / place)
    assert str(os.getpid()) not in str(error.value).replace(str(tmp_path), "")
