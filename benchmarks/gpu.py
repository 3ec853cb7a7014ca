"""Measures training and inference on a GPU, in comparison with torchvision and Keras.

    python benchmarks/gpu.py [--json ROWS] [--resume] [--minutes 5] [--only WORD ...] [--layout]

Each contestant runs in its own process, one after another. A batch of noise is already on the
device, a training step is forward, backward and SGD with momentum, and medians of rounds are
reported. bf16 is mixed precision with bfloat16, tf32 is float32 with the default precision of
GPUs. `train-shards` and `train-folder` run the complete `keras_resnet.training.train`, on
generated images of the size of photographs; `pipeline-shards` and `pipeline-folder` run its input
pipelines alone.

Without --only, it runs ResNet-50 in bf16 with batch size 256 for all contestants, ResNeXt-50 for
two, and one training. --only selects rows by words (contestants, networks, bf16 or tf32, 64 or
256, training or inference) from all of them. --layout runs ResNeXt-50 in both data formats.
Nothing is started that cannot end within --minutes; the same command with --resume continues.

Contestants that cannot run are rows with the reason. Those of torch need torch and torchvision.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gpu_contestants import CONTESTANTS, Conditions
from gpu_networks import POLICIES, Job

HERE = Path(__file__).parent
PATIENCE = 3  # timeout, as a multiple of the expected time

# The most interesting ones first.
FIVE_MINUTES = (
    ("keras_resnet", "resnet50"),
    ("torch.compile", "resnet50"),
    ("pipeline-shards", ""),
    ("train-shards", "resnet50"),
    ("keras_resnet", "resnext50_32x4d"),
    ("torch.compile", "resnext50_32x4d"),
    ("keras_resnet-no-xla", "resnet50"),
    ("torchvision", "resnet50"),
    ("keras.applications", "resnet50"),
    ("keras_resnet-jax", "resnet50"),
)
LAYOUTS = [name for name in CONTESTANTS if name.endswith(("-nchw", "-no-xla"))]


def every_job(quick):
    """Returns all jobs."""
    batches, size = ([2], 64) if quick else ([256, 64], 224)
    jobs = []
    for batch, (name, contestant) in itertools.product(batches, CONTESTANTS.items()):
        models = contestant.models[:1] if quick else contestant.models
        for model, precision in itertools.product(models, POLICIES):
            fields = (name, model, precision if model else "", batch, size)
            jobs += [Job(*fields, task) for task in contestant.tasks]
    return list(dict.fromkeys(jobs))


def choose(arguments):
    """Returns the jobs selected by the command line, in order."""
    jobs = every_job(arguments.quick)
    if arguments.only:
        return only(jobs, arguments.only)
    pairs = FIVE_MINUTES
    if arguments.layout:
        pairs = [(name, "resnext50_32x4d") for name in ("keras_resnet", *LAYOUTS)]
    if arguments.quick:
        pairs = [(name, model and "resnet18") for name, model in pairs]
    wanted = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    batch = jobs[0].batch
    chosen = [
        job
        for job in jobs
        if job[:2] in wanted and job.precision in ("bf16", "") and job.batch == batch
    ]
    return sorted(chosen, key=lambda job: wanted[job[:2]])


def only(jobs, words):
    """Selects jobs by words, which are values of their fields."""
    columns = [[str(value) for value in column] for column in zip(*jobs, strict=True)]
    known = sorted(set(itertools.chain(*columns)) - {""})
    for word in words:
        if word not in known:
            raise SystemExit(f"--only does not know {word!r}. There are {', '.join(known)}.")
    named = [set(words) & set(column) for column in columns]
    return [
        job
        for job in jobs
        if all(
            not of_field or not value or str(value) in of_field
            for value, of_field in zip(job, named, strict=True)
        )
    ]


def run(jobs, conditions, seconds):
    """Yields a row for each job of one contestant; ends its process after `seconds`.

    Rows of jobs that could not be measured have `error`.
    """
    given = {"job": jobs[0], "tasks": [job.task for job in jobs], "conditions": conditions}
    waiting = {job.task: job for job in jobs}
    reason = None
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [sys.executable, HERE / "gpu_contestants.py", json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # so that its child processes can be ended too
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):

        def end():
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            for line in process.stdout:
                row = json.loads(line)
                reason = row.get("error")
                if not reason:
                    yield {**waiting.pop(row["task"])._asdict(), **row}
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                end()
        if late.is_set():
            reason = f"took more than {seconds:.3g} s"
        elif not reason:
            log.seek(0)
            said = (log.read().strip().splitlines() or [""])[-1]
            reason = f"ended with exit code {process.returncode}. {said[:300]}"
    for job in waiting.values():
        yield {**job._asdict(), "error": reason}


def measure(chosen, arguments, keep):
    """Measures jobs until there is no time left for another; calls `keep` with each row.

    Returns:
        Number of remaining jobs.
    """
    deadline = time.monotonic() + 60 * arguments.minutes - 5  # time to end a process
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        conditions = Conditions(arguments.quick, str(Path(folder, "pictures")))
        for key, group in itertools.groupby(chosen, key=lambda job: job[:-1]):
            jobs, expected = list(group), CONTESTANTS[key[0]].seconds
            remaining = deadline - time.monotonic()
            if expected > remaining:
                left += len(jobs)
                continue
            print(f"{' '.join(map(str, filter(None, key)))} px ...", flush=True)
            for row in run(jobs, conditions, min(PATIENCE * expected, remaining)):
                if "error" in row and time.monotonic() > deadline:
                    left += 1  # not measured because of the time limit, so it will be tried again
                else:
                    print(f"  {row['task']}: {said(row)}", flush=True)
                    keep(row)
    return left


def said(row):
    """Formats the result of a row."""
    return row.get("error") or f"{row['images_per_second']:,.0f} images/s"


def tables(rows):
    """Yields Markdown tables: steps for each network, precision and batch size, and trainings."""
    found = {Job(*(row[field] for field in Job._fields)): row for row in rows}
    steps, trainings = {}, []
    for job in found:
        if job.contestant.startswith("train-"):
            trainings.append(job)
        elif job.model:
            names = steps.setdefault(job[1:-1], {})
            names[job.contestant] = None
    for (model, precision, batch, size), names in steps.items():
        yield f"\n{model}, {precision}, batch {batch}, {size} px, images/s\n"
        yield "| | training | to torch.compile | inference | to torch.compile | 1st step, s | GiB |"
        yield "|---|---|---|---|---|---|---|"
        for name in names:
            cells = []
            for task in ("training", "inference"):
                row, other = (
                    found.get(Job(contestant, model, precision, batch, size, task), {})
                    for contestant in (name, "torch.compile")
                )
                cells += [said(row).removesuffix(" images/s") if row else "", ratio(row, other)]
            row = found.get(Job(name, model, precision, batch, size, "training"), {})
            cells += [number(row.get("first_step_seconds")), number(row.get("peak_gib"))]
            yield f"| {name} | {' | '.join(cells)} |"
    if trainings:
        yield "\nComplete training, images/s once compiled; ratio to the slower of the two parts\n"
        yield "| | train | pipeline alone | step alone | ratio | total s |"
        yield "|---|---|---|---|---|---|"
    for job in trainings:
        row, source = found[job], job.contestant.removeprefix("train-")
        pipeline = found.get(job._replace(contestant=f"pipeline-{source}", model="", precision=""))
        step = found.get(job._replace(contestant="keras_resnet"))
        alone = [other for other in (pipeline, step) if other and "error" not in other]
        cells = [
            said(other).removesuffix(" images/s") if other else ""
            for other in (row, pipeline, step)
        ]
        slower = min(alone, key=lambda other: other["images_per_second"], default={})
        cells.append(ratio(row, slower if len(alone) == 2 else {}))
        cells.append(number(row.get("total_seconds")))
        name = f"{source}: {job.model}, {job.precision}, batch {job.batch}, {job.size} px"
        yield f"| {name} | {' | '.join(cells)} |"


def ratio(row, other):
    """Formats the ratio of two speeds; empty if one is missing."""
    speeds = [each.get("images_per_second") for each in (row, other)]
    return f"{speeds[0] / speeds[1]:.2f}" if all(speeds) else ""


def number(value):
    """Formats a number with one decimal; empty for None."""
    return "" if value is None else f"{value:.1f}"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="run only rows with these words")
    parser.add_argument("--layout", action="store_true", help="NHWC and NCHW, of ResNeXt-50")
    parser.add_argument("--minutes", type=float, default=5, help="time limit in minutes (5)")
    parser.add_argument("--json", type=Path, metavar="ROWS", help="append each row to this file")
    parser.add_argument("--resume", action="store_true", help="skip rows that are already in ROWS")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, batch 2, 64 px, any CPU")
    arguments = parser.parse_args()
    if arguments.resume and not arguments.json:
        parser.error("--resume needs --json ROWS, the file of the run to continue.")
    rows = []
    if arguments.resume and arguments.json.exists():
        rows = [json.loads(line) for line in arguments.json.read_text().splitlines()]
    done = {tuple(row[field] for field in Job._fields) for row in rows}
    # If this is run with `timeout`, the contestant is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def keep(row):
        rows.append(row)
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(row) + "\n")

    left = measure([job for job in choose(arguments) if job not in done], arguments, keep)
    for line in tables(rows):
        print(line)
    if left:
        print(f"\n{left} rows are left. To continue after the time limit, use --json and --resume.")


if __name__ == "__main__":
    main()
