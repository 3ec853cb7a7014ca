"""Image folders as TFRecord files: a few large files instead of many small ones."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.data.datasets import shuffled
from keras_resnet.data.image_folder import list_parts, save_class_indices
from keras_resnet.data.images import Images
from keras_resnet.data.label_sets import LabelSets
from keras_resnet.data.pipeline import batches
from keras_resnet.data.skipped import PARALLEL, Skipped
from keras_resnet.data.smaller import smaller, smaller_options
from keras_resnet.data.source import DataError, Source, stream_source
from keras_resnet.data.unreadable import why_bad_image
from keras_resnet.decoding import plainly
from keras_resnet.files import LOCK, locked, read_json, remove_leftovers, replacing, write_text

INDEX = "shards.json"
AGAIN = "Remove the folder and write it again: keras-resnet shards."
READ_AT_ONCE = 16  # shards
# Feature names as in ImageNet's TFRecords.
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature((), tf.string),
    "image/class/label": tf.io.FixedLenFeature((), tf.int64),
    "image/filename": tf.io.FixedLenFeature((), tf.string, default_value=""),
}


def write_shards(
    directory: str | os.PathLike,
    output: str | os.PathLike,
    *,
    shards: int = 128,
    seed: int = 0,
    max_side: int | None = None,
    quality: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Skipped:
    """Writes an image folder as TFRecords: the files' own bytes, label and name, in random order.

    Shards are written in parallel, each to a temporary file that is then renamed. After an
    interruption, another call writes only the missing shards.

    Args:
        directory: A folder of class folders, or a table with one label for each image; or a folder
            with `train` and `val` parts of those, which become `train` and `val` folders of shards.
        output: The folder to write: `00000-of-00128.tfrecord`, ..., `shards.json`,
            `class_indices.json`.
        shards: Number of files; fewer if there are fewer images.
        seed: Random seed of the order.
        max_side: Maximum length of the longer side in pixels. Larger images are resized to it with
            Pillow's Lanczos filter and stored as JPEG; all others are stored unchanged. None to
            store all images unchanged.
        quality: JPEG quality of resized images, 1 to 100. Default: 90.
        on_progress: Function of (number of shards done, total number), called after each shard.

    Returns:
        The unreadable images, which were skipped.

    Raises:
        DataError: if the folder does not have this structure, the output contains something else,
            or another process or thread is writing there.
        ValueError: if shards, max_side or quality is out of range.
        OSError: if the output cannot be written.
    """
    if shards < 1:
        raise ValueError(f"shards should be 1 or more. Received: shards={shards}")
    stored = smaller_options(max_side, quality)
    output, parts = Path(output), list_parts(directory)
    for images in parts.values():
        if isinstance(images.labels, LabelSets) or images.weights is not None:
            raise DataError(
                f"{directory} has images with several labels or with weights. Shards have one "
                "label for each image; train from the table itself."
            )
    skipped, total, done = Skipped(), sum(min(shards, len(part)) for part in parts.values()), 0
    busy = DataError(
        f"Another process is writing shards to {output}. Wait for it, or choose another folder."
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output, busy):
            for name, images in parts.items():
                skipped.add_all(images.unusable | images.unread)
                number = min(shards, len(images))
                part = _write_part(images, output / name, number, seed, stored, skipped)
                with contextlib.closing(part):  # ends its threads before the lock is released
                    for _ in part:
                        done += 1
                        if on_progress:
                            on_progress(done, total)
    except tf.errors.OpError as error:
        raise OSError(f"{output} cannot be written: {error.message}") from error
    return skipped


def _write_part(images: Images, output, shards, seed, stored, skipped):
    """Writes one folder of shards, yielding after each."""
    names = tf.strings.reduce_join(images.names, separator="\0").numpy()
    content = hashlib.sha256(names + np.asarray(images.labels).tobytes() + f"{seed}".encode())
    plan = {
        "content": content.hexdigest(),
        "shards": shards,
        "class_names": list(images.class_names),
    }
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    index, before = output / INDEX, None
    if index.exists():
        before = read_json(index, _index, advice=AGAIN, error=DataError)
        if {key: before.get(key) for key in plan} != plan:
            raise DataError(
                f"{output} holds {before.get('shards')} shards of different images, or in a "
                f"different order (expected {shards} shards of {len(images)} images, seed "
                f"{seed}). Choose another folder or remove it."
            )
        if {key: before.get(key) for key in stored} != stored:
            raise DataError(
                "{} has shards with max_side={}, quality={}. Received: max_side={}, quality={}. "
                "Pass the same values, choose another folder or remove it.".format(
                    output, *map(before.get, stored), *stored.values()
                )
            )
    elif any(entry.name != LOCK for entry in output.iterdir()):
        raise DataError(f"{output} contains other files. Choose another folder or remove it.")
    if before is not None and "counts" in before:
        skipped.add_all(before["skipped"])
        yield from range(shards)
        return
    plan |= stored
    _write_json(index, plan)
    save_class_indices(images.class_names, output / "class_indices.json")
    order = np.random.default_rng(seed).permutation(len(images))

    def write(number):
        file = output / f"{number:05}-of-{shards:05}.tfrecord"
        account = file.with_suffix(".json")
        if not (file.exists() and account.exists()):
            chosen = np.array_split(order, shards)[number]
            _write_json(account, _write_shard(images, chosen, file, **stored))
        return read_json(account, _account, advice=AGAIN, error=DataError)

    counts: list[int] = []
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for account in pool.map(write, range(shards)):
            counts.append(account["count"])
            bad |= account["skipped"]
            skipped.add_all(account["skipped"])
            yield
    _write_json(index, {**plan, "counts": counts, "skipped": bad})
    for account in output.glob("*-of-*.json"):
        account.unlink()


def _index(values):
    """Validates the content of shards.json, both of unfinished and of finished shards."""
    names, counts = values["class_names"], values.get("counts", [])
    if not (_are(names, str) and names and _are(counts, int) and isinstance(values["shards"], int)):
        raise TypeError("class_names should be names, shards a number and counts numbers")
    if "counts" in values and len(counts) != values["shards"]:
        raise ValueError(f"{len(counts)} counts of {values['shards']} shards")
    if not all(0 <= count < 2**40 for count in counts):
        raise ValueError("counts should be 0 or more")
    if not isinstance(values.get("skipped", {}), dict):
        raise TypeError("skipped should be {name: reason}")
    return values


def _account(values):
    """Validates the record of one shard of an unfinished set."""
    if not isinstance(values["count"], int) or not isinstance(values["skipped"], dict):
        raise TypeError("count should be a number, skipped {name: reason}")
    return values


def _are(values, kind):
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _write_json(path, content):
    write_text(path, json.dumps(content, indent=1))


def _write_shard(images, chosen, file, max_side, quality):
    """Writes the images of one shard; returns their number, and {name: reason} of skipped ones."""
    count, bad, labels = 0, {}, np.asarray(images.labels)
    with replacing(file) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for place in chosen:
            name = images.file(place)
            try:
                content = Path(name).read_bytes()
                reason = why_bad_image(content)
            except OSError as error:
                reason = error.strerror
            if reason:
                bad[name] = reason
                continue
            if max_side is not None:
                content = smaller(content, max_side, quality)
            label = int(labels[images.chosen[place]])
            below = os.fsencode(name)[len(images.folder) :]
            values = {
                "image/encoded": tf.train.Feature(bytes_list={"value": [content]}),
                "image/class/label": tf.train.Feature(int64_list={"value": [label]}),
                "image/filename": tf.train.Feature(bytes_list={"value": [below]}),
            }
            example = tf.train.Example(features=tf.train.Features(feature=values))
            writer.write(example.SerializeToString())
            count += 1
    return {"count": count, "skipped": bad}


def tfrecords(
    directory: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
    worker: tuple[int, int] = (0, 1),
    seed: int = 0,
    **options: Any,
) -> tuple[tf.data.Dataset, list[str]]:
    """Makes batches of the images in TFRecord files.

    Shards are read in parallel, in a different order each epoch, and shuffled with a buffer of
    1,000 images.

    Args:
        directory: A folder that `keras-resnet shards` wrote, or one of `*.tfrecord` files with the
            features "image/encoded" and "image/class/label", which starts at 0.
        class_names: Class names, for files that `keras-resnet shards` did not write.
        worker: (index of this machine, number of machines). Each reads different shards, and gets
            the same number of images.
        seed: Random seed of the order and the augmentation.
        **options: Arguments of `data.batches`: training, image_size, batch_size, augmentation, ....

    Returns:
        (`tf.data.Dataset` of (images, labels), class names), as for `data.image_folder`.

    Raises:
        DataError: if there are no such files, they are incomplete, or too few for the workers.
    """
    return batches(shards_source(directory, class_names, worker), seed=seed, **options)


def shards_source(directory, class_names=None, worker=(0, 1)) -> Source:
    """Returns the images of a folder of shards; arguments and errors as for `tfrecords`."""
    directory = Path(directory)
    files = sorted(str(file) for file in directory.glob("*.tfrecord") if file.name[0] != ".")
    index = {}
    if (directory / INDEX).is_file():
        index = read_json(directory / INDEX, _index, advice=AGAIN, error=DataError)
        if "counts" not in index:
            raise DataError(
                f"The shards in {directory} are incomplete. Run keras-resnet shards again to "
                "resume."
            )
        if len(files) != index["shards"]:
            raise DataError(
                f"{directory} should have {index['shards']} shards, but has {len(files)}."
            )
    class_names = class_names or index.get("class_names")
    if not files or class_names is None:
        missing = "*.tfrecord files" if not files else f"{INDEX}, nor class_names"
        raise DataError(f"There are no {missing} in {directory}. Write them: keras-resnet shards.")
    which, workers = worker
    if not 0 <= which < workers <= len(files):
        raise DataError(
            f"{len(files)} shards can be split among 1 to {len(files)} workers, with indices from "
            f"0. Received: worker={worker}"
        )
    counts = index.get("counts") or [sum(1 for _ in records(file)) for file in files]
    total = sum(counts)
    if total < workers:
        raise DataError(
            f"The shards in {directory} contain {total} images, fewer than the {workers} workers."
        )

    @plainly
    def examples(key, start):
        order = tf.constant(files)
        if key is not None:
            places = tf.argsort(tf.random.stateless_uniform((len(files),), key))
            order = tf.gather(order, places)
        records = tf.data.Dataset.from_tensor_slices(order[which::workers]).interleave(
            _numbered,
            cycle_length=READ_AT_ONCE,
            num_parallel_calls=min(PARALLEL, READ_AT_ONCE),
            deterministic=True,
        )
        # Shards differ by a few images: a worker with fewer starts again.
        return (
            shuffled(records.map(example), key)
            .repeat(2)
            .take(total // workers)
            .skip(tf.cast(start, tf.int64))
        )

    def example(file, number, record):
        parsed = tf.io.parse_single_example(record, FEATURES)
        name = parsed["image/filename"]
        # In files from other programs, names may be missing or duplicate.
        place = tf.strings.join([file, tf.strings.as_string(number)], "/")
        unique = tf.strings.strip(tf.strings.join([place, name], " "))
        name = tf.where(tf.constant(bool(index)) & (name != b""), name, unique)
        return (
            name,
            parsed["image/encoded"],
            parsed["image/class/label"],
        )

    source = stream_source(class_names, total // workers, examples)
    return dataclasses.replace(source, worker=worker, listed=lambda: _listed(files, counts))


def _numbered(file):
    """Yields (file, index, record) of each record."""
    records = tf.data.TFRecordDataset(file).enumerate()
    return records.map(lambda number, record: (file, number, record))


def _listed(files, counts):
    """Lists the files; see `Source`."""
    for file, count in zip(files, counts, strict=True):
        yield os.path.basename(file), os.path.getsize(file), count


def records(file):
    """Yields (start, length) of the data of each record in a TFRecord file.

    A record is length (8 bytes), checksum (4), data, checksum (4).
    """
    size = os.path.getsize(file)
    with open(file, "rb") as stream:
        while header := stream.read(12):
            start, length = stream.tell(), int.from_bytes(header[:8], "little")
            end = start + length + 4
            if len(header) < 12 or end > size:
                raise DataError(f"{file} is truncated, or not a TFRecord file.")
            yield start, length
            stream.seek(end)
