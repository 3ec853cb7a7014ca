"""The contestants of gpu.py: one network in several libraries on a GPU, and `train`.

    python benchmarks/gpu_contestants.py JOB

gpu.py starts one process for each contestant. JOB is JSON with the fields of a `Job` and of
`Conditions`; each result is printed as a line of JSON as soon as it is known.
"""

import csv
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gpu_networks import (
    POLICIES,
    Job,
    device_name,
    jax_network,
    tensorflow_network,
    torch_network,
)

WARM_UP = 3
ROUNDS = 5
ROUND_SECONDS = 0.7
PIPELINE_SECONDS = 8.0
EPOCHS = 4  # of `train`; the first compiles
PICTURES = (8192, 512)  # number of training and of validation images
NO_GPU = "no GPU was found; --quick runs on a CPU"


class Conditions(NamedTuple):
    """Settings that all jobs of a run share."""

    quick: bool  # on a CPU, a step or two
    data: str  # the folder for photographs.py, written when it is needed


def wait(value):
    """Waits for the device by reading a number of the result."""
    while value.ndim:
        value = value[0]
    return float(value)


def measure(step, quick):
    """Returns the seconds of a step, the median over rounds, and of the first, which compiles."""
    begun = time.perf_counter()
    wait(step())
    first = time.perf_counter() - begun
    rounds, steps = (1, 1) if quick else (ROUNDS, WARM_UP)
    for number in range(rounds + 1):  # the first one determines the number of steps per round
        begun = time.perf_counter()
        for _ in range(steps):
            value = step()
        wait(value)
        seconds = (time.perf_counter() - begun) / steps
        if number == 0:
            found, steps = [], steps if quick else max(WARM_UP, round(ROUND_SECONDS / seconds))
        else:
            found.append(seconds)
    return statistics.median(found), first


def steps_alone(make, job, tasks, conditions):
    """Yields a row for each task of a network, with a batch on the device."""
    network = make(job)
    if not (network.gpu or conditions.quick):
        raise RuntimeError(NO_GPU)
    for task in tasks:
        seconds, first = measure(network.step(task), conditions.quick)
        held = network.peak()
        yield {
            "task": task,
            "images_per_second": job.batch / seconds,
            "first_step_seconds": first,
            "peak_gib": held and held / 2**30,
            "device": network.gpu,
        }


def recipe(source, job, conditions):
    """Returns the recipe for measuring `train` and the pipeline."""
    from keras_resnet.training import Recipe

    return Recipe(
        data=str(Path(conditions.data) / source),
        model=job.model or "resnet50",
        image_size=job.size,
        batch_size=job.batch,
        epochs=2 if conditions.quick else EPOCHS,
        optimizer="sgd",
        learning_rate=0.01,
        precision=POLICIES[job.precision or "tf32"],
        jit_compile=not conditions.quick,
    )


def make_pictures(conditions):
    """Writes the training images unless they exist; returns the seconds that it took."""
    begun, folder = time.perf_counter(), Path(conditions.data)
    if not folder.exists():
        shutil.rmtree(f"{folder}.unfinished", ignore_errors=True)
        counts = (8, 4) if conditions.quick else PICTURES
        program = Path(__file__).with_name("photographs.py")
        subprocess.run([sys.executable, program, folder, *map(str, counts)], check=True)
    return time.perf_counter() - begun


def pipeline_alone(source, job, tasks, conditions):
    """Yields a row for the input pipeline of `train` alone."""
    from keras_resnet.data import training_sources
    from keras_resnet.training.feed import training_feed

    make_pictures(conditions)
    made = recipe(source, job, conditions)
    batches = training_feed(
        training_sources(made.data)[0],
        preprocessing=made.training_preprocessing,
        batch_size=job.batch,
        seed=0,
        augmentation=made.augmentation,
        first_step=0,
    )
    for number, _ in enumerate(batches):
        if number == WARM_UP:
            begun = time.perf_counter()
        elif number > WARM_UP:
            seconds = time.perf_counter() - begun
            if seconds > PIPELINE_SECONDS or conditions.quick:
                break
    yield {"task": tasks[0], "images_per_second": (number - WARM_UP) * job.batch / seconds}


def whole_train(source, job, tasks, conditions):
    """Yields a row for the complete `train`: data, network, validation, export, report."""
    begun = time.perf_counter()
    import tensorflow as tf

    from keras_resnet.training import train

    gpus = tf.config.list_physical_devices("GPU")
    if not (gpus or conditions.quick):
        raise RuntimeError(NO_GPU)
    begun += make_pictures(conditions)
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe(source, job, conditions), Path(folder, "run"))
        seconds = time.perf_counter() - begun
        with (run / "history.csv").open(newline="") as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    yield {
        "task": tasks[0],
        "images_per_second": statistics.median(speeds[1:]),
        "first_epoch_images_per_second": speeds[0],
        "total_seconds": seconds,
        "device": device_name(gpus),
    }


class Contestant(NamedTuple):
    """How to measure a contestant, and the seconds that it takes on an H100, with imports."""

    rows: Callable
    seconds: int
    models: tuple[str, ...] = ("resnet18", "resnet50", "resnext50_32x4d")
    tasks: tuple[str, ...] = ("training", "inference")


def _steps(function, seconds, models=Contestant._field_defaults["models"], **options):
    make = functools.partial(function, **options)
    return Contestant(functools.partial(steps_alone, make), seconds, models)


def _source(function, source, seconds, **options):
    return Contestant(functools.partial(function, source), seconds, tasks=("training",), **options)


CONTESTANTS = {
    "keras_resnet": _steps(tensorflow_network, 90),
    "keras_resnet-no-xla": _steps(tensorflow_network, 35, jit_compile=False),
    "keras_resnet-nchw": _steps(tensorflow_network, 90, layout="channels_first"),
    "keras_resnet-nchw-no-xla": _steps(
        tensorflow_network, 35, layout="channels_first", jit_compile=False
    ),
    "keras_resnet-jax": _steps(jax_network, 90),
    "keras.applications": _steps(
        tensorflow_network, 90, ("resnet50",), library="keras.applications"
    ),
    "torchvision": _steps(torch_network, 40),
    "torch.compile": _steps(torch_network, 100, compiled=True),
    "pipeline-shards": _source(pipeline_alone, "shards", 40, models=("",)),
    "pipeline-folder": _source(pipeline_alone, "folder", 40, models=("",)),
    "train-shards": _source(whole_train, "shards", 110),
    "train-folder": _source(whole_train, "folder", 110),
}


def versions():
    """Returns the versions of the imported libraries."""
    names = ("tensorflow", "keras", "jax", "torch", "torchvision")
    used = [name for name in names if name in sys.modules]
    return ", ".join(f"{name} {sys.modules[name].__version__}" for name in used)


def main(text):
    """Prints a row for each task, with the reason if it could not be measured."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects the output of libraries
    given = json.loads(text)
    job, conditions = Job(*given["job"]), Conditions(*given["conditions"])
    try:
        for row in CONTESTANTS[job.contestant].rows(job, given["tasks"], conditions):
            print(json.dumps({**row, "versions": versions()}), file=answers, flush=True)
    except ModuleNotFoundError as error:
        print(json.dumps({"error": f"not installed: {error.name}"}), file=answers, flush=True)
    except Exception as error:  # any error of a library is the result
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"error": said[:300]}), file=answers, flush=True)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
