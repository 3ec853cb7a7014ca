"""Files that are there whole or not at all, whoever else writes."""

import os
import subprocess
import sys
import threading

from keras_resnet.files import remove_leftovers, replacing, write_text


def test_four_threads_write_one_file(tmp_path):
    path, errors = tmp_path / "history.csv", []

    def write(number):
        try:
            for _ in range(50):
                write_text(path, str(number) * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(path.read_text()) == 1000 and len(set(path.read_text())) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_the_longest_names(tmp_path):
    for name in ("x" * 248 + ".pth", "\N{CJK UNIFIED IDEOGRAPH-82B1}" * 83 + ".pth"):
        with replacing(tmp_path / name) as temporary:
            assert temporary.suffix == ".pth"
            temporary.write_text("x")
        assert (tmp_path / name).read_text() == "x"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync") or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("replace") or replace(*names))
    write_text(tmp_path / "a.txt", "a")
    assert done[:1] == ["fsync"] and set(done) <= {"fsync", "replace"} and len(done) >= 2


def test_leftovers_are_those_of_processes_that_are_gone(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lives = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    names = [f".{process.pid}.0a1b2c3d.best.keras" for process in (gone, lives)]
    for name in (*names, ".hidden"):
        (tmp_path / name).touch()
    with replacing(tmp_path / "own") as temporary:
        temporary.touch()
        remove_leftovers(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {
            *(names[1], ".hidden", temporary.name)
        }
    lives.communicate()
    old = tmp_path / f".{os.getpid()}.0a1b2c3d.best.keras"
    old.touch()
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".hidden", "own"}
