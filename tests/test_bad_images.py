"""Unreadable images are skipped and listed at any position, without other effects."""

import collections
import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numbered_images import COUNT, arguments, epoch_numbers, make, numbers
from PIL import Image

from keras_resnet import data
from keras_resnet.data.images import list_images
from keras_resnet.data.pipeline import evaluation_batches
from keras_resnet.data.skipped import check_sample
from keras_resnet.preprocessing import Preprocessing


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "images")


def spoil(folder):
    """Breaks images in all ways; returns {file name: part of the reason}."""
    good = (folder / "a" / "00.png").read_bytes()
    (folder / "a" / "02.png").write_bytes(good[:60])
    (folder / "b" / "03.png").write_bytes(b"")
    (folder / "b" / "05.png").write_text("this is no image")
    bomb = bytearray(good)
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    (folder / "b" / "07.png").write_bytes(bomb)
    (folder / "b" / "21.png").write_bytes(good[:8])  # the last image
    return {
        "02.png": "damaged",
        "03.png": "empty",
        "05.png": "not an image",
        "07.png": "its size is above the limit",
        "21.png": "damaged",
    }


def in_turn(folder):
    """Returns the source of a folder with examples in a fixed order.

    The usual order is a traced function that is traced again for each bad image, which is slow.
    """
    images = list_images(folder)
    files = tf.constant([images.file(index) for index in range(len(images))])
    labels = tf.constant(images.labels, tf.int64)

    def examples(key, start):
        return tf.data.Dataset.from_tensor_slices((files, files, labels)).skip(start)

    return dataclasses.replace(images.source(), examples=examples)


def test_bad_images_change_nothing_else(folder):
    batches, _ = data.batches(in_turn(folder), **arguments())
    before = [(numbers(x), x, y) for x, y in batches.as_numpy_iterator()]
    expected = spoil(folder)
    bad = {int(name[:2]) for name in expected}
    skipped = data.Skipped()
    after, _ = data.batches(in_turn(folder), **arguments(max_bad=0.3, skipped=skipped))
    assert len(after) == len(before)
    for (order, x, y), (x_after, y_after) in zip(before, after.as_numpy_iterator(), strict=True):
        good = [place for place, number in enumerate(order) if number not in bad]
        np.testing.assert_array_equal(x[good], x_after[good])
        np.testing.assert_array_equal(y[good], y_after[good])
        assert not bad & set(numbers(x_after))
        assert len(x_after) == len(x)
    reasons = {os.path.basename(name): reason for name, reason in skipped.reasons.items()}
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name]
    with pytest.raises(data.DataError, match=r"5 of 22 image files(.|\n)*check-data"):
        data.image_folder(folder, **arguments())


def test_evaluation_leaves_bad_images_out_and_keeps_its_steps(folder):
    expected = spoil(folder)
    for number in range(8):  # including a whole batch
        (folder / "ab"[number % 2] / f"{number:02}.png").write_text("broken")
    skipped = data.Skipped()
    source = list_images(folder).source()
    batches = evaluation_batches(source, Preprocessing(32, 32), batch_size=4, skipped=skipped)
    assert len(batches) == 6
    seen = list(batches.as_numpy_iterator())
    assert len(seen) == 6
    names = [os.path.basename(name).decode() for _, _, part in seen for name in part]
    bad = {f"{number:02}.png" for number in range(8)} | expected.keys()
    everything = [f"{number:02}.png" for number in (*range(0, COUNT, 2), *range(1, COUNT, 2))]
    # The first batch has no good image: its placeholder is another image.
    assert names[0] in names[1:]
    assert names[1:] == [name for name in everything if name not in bad]
    assert {os.path.basename(name) for name in skipped.reasons} == bad


@pytest.mark.slow
def test_files_that_break_or_vanish_in_training(folder):
    skipped = data.Skipped()
    batches, _ = data.image_folder(folder, **arguments(skipped=skipped))
    assert not skipped
    (folder / "a" / "02.png").unlink()
    (folder / "b" / "05.png").write_text("broken")
    order = epoch_numbers(batches)
    assert len(order) == COUNT
    assert not {2, 5} & set(order)
    reasons = {os.path.basename(name): reason for name, reason in skipped.reasons.items()}
    assert reasons.keys() == {"02.png", "05.png"}
    assert "No such file" in reasons["02.png"]


@pytest.mark.slow
def test_training_ends_when_nothing_is_left(folder):
    batches, _ = data.image_folder(folder, **arguments())
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(tf.errors.OpError, match="consecutive images cannot be decoded"):
        list(batches)


def test_unreadable_files_are_named():
    """Runs as the user nobody, since root can read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = make(Path(name))
        os.chmod(name, 0o755)  # noqa: S103 (the user nobody needs access)
        (folder / "a" / "02.png").chmod(0)
        (folder / "b").chmod(0)
        (folder / "a" / "more").mkdir()
        (folder / "a" / "more").chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(data.DataError, match="contain no images: b"):
                data.image_folder(folder, **arguments())
            if root:
                os.seteuid(0)
            (folder / "b").chmod(0o755)
            if root:
                os.seteuid(65534)
            skipped = data.Skipped()
            batches, _ = data.image_folder(folder, image_size=32, skipped=skipped)
            assert sum(len(labels) for _, labels in batches) == COUNT - 1
        finally:
            if root:
                os.seteuid(0)
            (folder / "a" / "more").chmod(0o755)
    assert {os.path.basename(name) for name in skipped.reasons} == {"02.png", "more"}
    assert set(skipped.reasons.values()) == {"Permission denied"}


def test_a_class_with_no_good_image(folder):
    for path in (folder / "a").iterdir():
        path.write_text("broken")
    with pytest.raises(data.DataError, match="class 'a' can be read"):
        data.image_folder(folder, image_size=32, max_bad=0.9)


def mutations(contents, count, seed=0):
    """Yields files that are randomly truncated, overwritten or spliced."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(contents[number % len(contents)])
        kind = rng.integers(4)
        if kind == 0:
            content = content[: rng.integers(len(content))]
        elif kind == 1:
            for _ in range(rng.integers(1, 20)):
                content[rng.integers(len(content))] = rng.integers(256)
        elif kind == 2:
            for _ in range(rng.integers(1, 4)):  # in the header, which has the sizes
                content[rng.integers(min(64, len(content)))] = rng.integers(256)
        else:
            start, end = sorted(rng.integers(len(content), size=2))
            content[start:end] = rng.bytes(rng.integers(0, 64))
        yield bytes(content)


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_images(count, tmp_path):
    """Nothing crashes, and each image is either used or listed."""
    whole = Image.effect_noise((50, 40), 60).convert("RGB")
    contents = []
    for number, (kind, mode) in enumerate(
        [
            *(("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P")),
            *(("PNG", "RGBA"), ("GIF", "P"), ("BMP", "RGB"), ("BMP", "P"), ("WEBP", "RGB")),
        ]
    ):
        path = tmp_path / f"whole{number}"
        whole.convert(mode).save(path, kind)
        contents.append(path.read_bytes())
    suffixes = ("jpg", "jpg", "jpg", "png", "png", "png", "gif", "bmp", "bmp", "webp")
    for number, content in enumerate(mutations(contents, count)):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:04}.{suffixes[number % 10]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    source = in_turn(tmp_path / "images")
    skipped = data.Skipped()
    batches = evaluation_batches(source, Preprocessing(32, 32), batch_size=16, skipped=skipped)
    used = [os.fsdecode(name) for _, _, names in batches for name in names.numpy()]
    assert len(used) == len(set(used)) == count - len(skipped)
    assert not set(used) & skipped.reasons.keys()
    assert 0.2 < len(skipped) / count < 0.9
    for name, reason in skipped.reasons.items():
        assert "readable now" not in reason, name
    if count > 40:
        train, _ = data.batches(source, max_bad=1.0, **arguments())
        assert sum(len(labels) for _, labels in train) == count


def test_only_the_first_reason_of_a_file_is_kept():
    skipped = data.Skipped()
    skipped.add("a.jpg", "it is empty")
    skipped.add("a.jpg", "it is damaged")
    assert collections.Counter(skipped.reasons.values()) == {"it is empty": 1}


@pytest.mark.slow
def test_a_truncated_jpeg_is_bad_wherever_its_crop_lies(folder):
    """The decoder stops after the crop, so it does not notice the end by itself."""
    path = folder / "a" / "whole.jpg"
    Image.effect_noise((60, 200), 50).convert("RGB").save(path, quality=95)
    content = path.read_bytes()
    path.write_bytes(content + bytes(5000))  # trailing bytes of some cameras are not damage
    skipped = data.Skipped()
    batches, _ = data.image_folder(folder, **arguments(skipped=skipped))
    assert sum(len(labels) for _, labels in batches) == COUNT + 1
    assert not skipped
    path.write_bytes(content[: len(content) * 95 // 100])
    evaluation = evaluation_batches(
        list_images(folder).source(), Preprocessing(32, 32), batch_size=8, skipped=skipped
    )
    for read in (evaluation, batches):
        skipped.reasons.clear()
        list(read)
        assert list(skipped.reasons) == [str(path)]


def test_a_few_unusable_entries_are_no_large_share(folder):
    for number in range(2):
        (folder / "a" / f"link{number}.jpg").symlink_to("nowhere")
    source = list_images(folder).source()
    check_sample(source, data.Skipped(), max_bad=0.09, seed=0)  # 2 of 24
    with pytest.raises(data.DataError, match="2 of 24"):
        check_sample(source, data.Skipped(), max_bad=0.08, seed=0)


def test_images_are_known_by_their_content(folder, caplog):
    """TensorFlow's formats are used, other image formats are listed, other files are ignored."""
    place = sorted(path for path in folder.iterdir() if path.is_dir())[0]
    before = list_images(folder)
    picture = Image.new("RGB", (40, 30), (200, 80, 0))
    read = [("a.jfif", "JPEG"), ("b.jpe", "JPEG"), ("c", "PNG"), ("d.img", "BMP"), ("e.x", "WEBP")]
    others = [("f.tif", "TIFF"), ("g.tiff", "TIFF"), ("h.ppm", "PPM"), ("i.pgm", "PPM")]
    others += [("j", "TIFF"), ("k.jp2", "JPEG2000"), ("l.ico", "ICO"), ("m.avif", "AVIF")]
    Image.init()
    others = [(name, kind) for name, kind in others if kind in Image.SAVE]
    for name, kind in [*read, *others]:
        picture.convert("L" if name == "i.pgm" else "RGB").save(place / name, kind)
    for name, content in (
        ("BMW.txt", b"BMW is no image at all"),
        ("Thumbs.db", b""),
        ("n", b"P5x"),
    ):
        (place / name).write_bytes(content)
    images = list_images(folder)
    assert len(images) == len(before) + len(read)
    assert sorted(images.unread) == sorted(str(place / name) for name, _ in others)
    assert images.ignored == before.ignored + 3
    skipped = data.Skipped()
    batches, _ = data.image_folder(folder, image_size=32, max_bad=0.0, skipped=skipped)
    assert sum(len(labels) for _, labels in batches) == len(images)
    assert skipped.unread == images.unread and not skipped.reasons
    assert f"{len(others)} images are skipped" in caplog.text and "f.tif" in caplog.text
    found = data.check_data(folder)
    assert (found.bad, found.unread, found.ignored) == ({}, images.unread, images.ignored)
