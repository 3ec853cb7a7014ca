"""Measures time and memory of listing ten million images in shards.

    python benchmarks/listing.py [--rows 10000000] [--shards 100]

One shard of equal small images is written, with hard links for the others: it is read from memory,
and needs little disk space. Each case runs in its own process: for training, shards with the
shards.json of `keras-resnet shards` and others, whose records have to be counted; and `keras-resnet
embed`, which stores the position of each record. Memory is the peak in addition to the imports.
Needs the parquet extra.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = ("shards of keras-resnet", "other TFRecords", "keras-resnet embed")


def write(folder, rows, shards):
    """Writes two folders of shards, one with shards.json, and a shard with a single record."""
    import tensorflow as tf

    pixels = tf.random.stateless_uniform((32, 32, 3), (0, 0), 0, 256, tf.int32)
    image = tf.io.encode_jpeg(tf.cast(pixels, tf.uint8))
    features = {
        "image/encoded": tf.train.Feature(bytes_list={"value": [image.numpy()]}),
        "image/class/label": tf.train.Feature(int64_list={"value": [0]}),
    }
    record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    with tf.io.TFRecordWriter(f"{folder}/one") as writer:
        for _ in range(rows // shards):
            writer.write(record)
    Path(folder, "warm").mkdir()
    with tf.io.TFRecordWriter(f"{folder}/warm/one.tfrecord") as writer:
        writer.write(record)
    for name in ("with", "without"):
        Path(folder, name).mkdir()
        for number in range(shards):
            os.link(f"{folder}/one", f"{folder}/{name}/{number:05}-of-{shards:05}.tfrecord")
    index = {"shards": shards, "class_names": ["a", "b"], "counts": [rows // shards] * shards}
    Path(folder, "with", "shards.json").write_text(json.dumps(index))


def measure(case, folder):
    """Prints the number of images, seconds, and MiB."""
    from keras_resnet.bulk.inputs import open_inputs
    from keras_resnet.data.shards import shards_source

    def count(part):
        if case == CASES[-1]:
            return open_inputs(f"{folder}/{part}").count
        return shards_source(f"{folder}/{part}", class_names=["a", "b"]).count

    count("warm")  # loads what is imported on first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = count("without" if case == "other TFRecords" else "with")
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([found, seconds, (after - before) / 1024]))


def main():
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(folder, arguments.rows, arguments.shards)
        for case in CASES:
            done = subprocess.run(
                [sys.executable, __file__, "--measure", case, folder],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(done.stderr[-2000:])
            count, seconds, mib = json.loads(done.stdout.splitlines()[-1])
            print(f"{case}: {count:,} pictures, {seconds:.2f} s, {mib:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
