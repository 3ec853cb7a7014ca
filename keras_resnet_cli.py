"""The command `keras-resnet`: parses and calls, no logic.

keras_resnet, and with it TensorFlow, is imported inside of the commands, so that --help is quick.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

# TensorFlow leaves oneDNN off on processors without AVX512-VNNI, where a training step then takes
# 1.4 times as long (docs/performance.md). Read when TensorFlow is imported, so set here.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

app = typer.Typer(
    help="Residual networks for Keras: weights, data, training, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False


def _set_debug(value: bool):
    global _debug
    _debug = _debug or value


Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show where in the code it failed.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# Of the commands that take a trained network.
NamedModel = Annotated[str | None, typer.Option(help="Or a network: resnet50.")]
NamedWeights = Annotated[str | None, typer.Option(help="And its weights.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side in pixels. \\[default: the run's, or 224]")
]
Resize = Annotated[
    int | None,
    typer.Option(help="Shorter side before the crop. \\[default: the run's or weights']"),
]


@contextlib.contextmanager
def quiet():
    """Drops what is meanwhile written to standard error, by C++ too; errors still raise.

    TensorFlow greets at its first import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):  # tensorflow-datasets speaks through absl
        logging.getLogger(name).setLevel(logging.ERROR)
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _import(name):
    with quiet():
        return importlib.import_module(f"keras_resnet.{name}")


def main():
    """Runs the command: 0 if all went well, 1 with one line if it failed, 2 if misused."""
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if _debug:
            raise
        print("Error:", _printable(" ".join(str(error).split())), file=sys.stderr)
        _leave(1)
    except Exception:
        if not _meets_others():
            raise
        traceback.print_exc()
        _leave(1)


def _meets_others():
    """Whether the process trains with others, by JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave(code):
    """Ends the process; where it trains with others, without JAX's wait for one that is dead."""
    if _meets_others():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@app.callback()
def _options(debug: Debug = False):
    pass


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(help="Only this network: resnet50.")] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """List the networks and their published weights.

    [bold]Example:[/bold] keras-resnet list resnet50
    """
    rows = _import("weights").list_weights(model)
    if as_json:
        print(json.dumps([{**dataclasses.asdict(row), "file": row.file} for row in rows], indent=2))
    else:
        print(rows or f"No weights of {model} are published.")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A file of weights.")],
    as_json: Json = False,
    debug: Debug = False,
):
    """Show what a file of weights holds, and which network it is of.

    Nothing that the file names is imported or run.

    [bold]Example:[/bold] keras-resnet inspect resnet50-0676ba61.pth
    """
    found = _import("weights").inspect(file)
    rows = [(name, str(t.dtype), list(t.shape), t.nbytes) for name, t in found.tensors.items()]
    published = found.published and f"{found.published.model} {found.published.name}"
    if as_json:
        summary = {
            "file": str(found.path),
            "container": found.container,
            "bytes": found.size,
            "sha256": found.sha256,
            "architecture": found.architecture.text,
            "model": found.architecture.variant,
            "classes": found.architecture.classes,
            "published": published,
            "tensors": [
                dict(zip(("name", "dtype", "shape", "bytes"), row, strict=True)) for row in rows
            ],
        }
        print(json.dumps(summary, indent=2))
        return
    width = min(max((len(name) for name, *_ in rows), default=0), 80)
    for name, dtype, shape, size in rows:
        print(f"{_printable(name):{width}}  {dtype:8}  {size:12,}  {shape}")
    print(f"\n{found.path}: {found.size:,} bytes, {found.container} container")
    print(f"sha256        {found.sha256}")
    print(f"tensors       {len(rows)}, {sum(t.size for t in found.tensors.values()):,} numbers")
    print(f"architecture  {_printable(found.architecture.text)}")
    print(f"published     {published or 'no, or not known here'}")


def _printable(text):
    """Without what would steer the terminal; the file chose it."""
    return "".join(character if character.isprintable() else "?" for character in text)


NameOrFile = Annotated[str, typer.Argument(help="A network, resnet50, or a file of weights.")]
PictureSize = Annotated[
    int | None, typer.Option(help="Side of the images in pixels. \\[default: 224, or CIFAR's 32]")
]


@app.command()
def summary(
    network: NameOrFile,
    image_size: PictureSize = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Show a network's stages: sizes, channels, parameters, multiply-adds.

    [bold]Example:[/bold] keras-resnet summary resnet50
    """
    visualize = _import("visualize")
    with quiet():
        model = _import("conversion").named_network(network)
    if as_json:
        rows = [dataclasses.asdict(stage) for stage in visualize.summary(model, image_size)]
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console

    Console().print(visualize.summary_table(model, image_size))


@app.command()
def plot(
    network: NameOrFile,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .svg or .png file. \\[default: NAME.svg]"),
    ] = None,
    detail: Annotated[
        str, typer.Option(help="block: a box a residual block; layer: every layer.")
    ] = "block",
    image_size: PictureSize = None,
    debug: Debug = False,
):
    """Draw a network, with shapes, parameters and multiply-adds.

    [bold]Example:[/bold] keras-resnet plot resnet50 -o resnet50.svg
    """
    visualize = _import("visualize")
    with quiet():
        model = _import("conversion").named_network(network)
    print(visualize.plot(model, output or f"{model.name}.svg", detail, image_size=image_size))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A file of weights.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .keras, .weights.h5, .safetensors or .pth file."),
    ],
    model: Annotated[
        str | None, typer.Option(help="The network, if the file does not tell: resnet50.")
    ] = None,
    version: Annotated[
        str, typer.Option(help="v1 for files of keras.applications, whose blocks stride first.")
    ] = "v1.5",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the outputs before and after.")
    ] = False,
    debug: Debug = False,
):
    """Convert a file of weights: PyTorch, safetensors, Keras, in every direction.

    [bold]Example:[/bold] keras-resnet convert resnet50-0676ba61.pth -o resnet50.keras --verify
    """
    variant, classes, difference = _import("conversion").convert(
        file, output, model=model, version=version, verify=verify
    )
    head = f"{classes} classes" if classes else "no head"
    print(f"{output}: {variant}, {head}")
    if verify:
        print(f"Verified: the largest difference between the outputs is {difference:g}.")


@app.command()
def download(
    model: Annotated[str, typer.Argument(help="The network, resnet50, or a file's name.")],
    weights: Annotated[
        str, typer.Option(help="Which: imagenet (IMAGENET1K_V1) or IMAGENET1K_V2.")
    ] = "imagenet",
    debug: Debug = False,
):
    """Download published weights, once, and check them.

    They go into KERAS_RESNET_HOME (default: ~/.keras/models), from KERAS_RESNET_WEIGHTS_URL if that
    names a mirror.

    [bold]Example:[/bold] keras-resnet download resnet50 --weights IMAGENET1K_V2
    """
    registry = _import("weights.registry")
    row = registry.find_file(model) or registry.find(model, weights)
    print(_import("weights").download(row))


@contextlib.contextmanager
def _progress(what):
    """A progress bar on the terminal: function of (done, total)."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@app.command()
def shards(
    directory: Annotated[Path, typer.Argument(help="A folder of class folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    number: Annotated[int, typer.Option("--shards", help="How many files.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Fixes the order of the images.")] = 0,
    debug: Debug = False,
):
    """Write a folder of images as TFRecord files; run again, it goes on where it was.

    Images that cannot be decoded are left out and named.

    [bold]Example:[/bold] keras-resnet shards photos -o photos_shards --shards 128
    """
    data = _import("data")
    logging.getLogger("keras_resnet").setLevel(logging.ERROR)  # they are listed below
    with _progress("writing shards") as on_progress:
        skipped = data.write_shards(
            directory, output, shards=number, seed=seed, on_progress=on_progress
        )
    for name, reason in skipped.reasons.items():
        print(_printable(f"Left out {name}: {reason}."))
    print(f"{output}: {number} shards, {len(skipped)} images left out")


@app.command("check-data")
def check_data(
    directory: Annotated[
        Path, typer.Argument(help="A folder with train/ and val/, or of class folders.")
    ],
    as_json: Json = False,
    debug: Debug = False,
):
    """Find the images that cannot be used, and those that both train and validate.

    Ends with 1 if there are any.

    [bold]Example:[/bold] keras-resnet check-data photos
    """
    data = _import("data")
    with _progress("checking images") as on_progress:
        found = data.check_data(directory, on_progress=on_progress)
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "total": found.total}, indent=2))
    else:
        for part, classes in found.counts.items():
            for name, count in classes.items():
                print(_printable(f"{count:9,}  {part + '/' if part else ''}{name}"))
        print(f"{found.total:9,}  images")
        for file, reason in found.bad.items():
            print(_printable(f"bad: {file}: {reason}"))
        for files in found.duplicates:
            print(_printable(f"the same image in train and val: {', '.join(files)}"))
        print(f"{len(found.bad)} bad, {len(found.duplicates)} that both train and validate")
    if found.bad or found.duplicates:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Option(help="flowers, fine_tune, cifar, imagenet_v1, imagenet_v2, or a file.")
    ] = "flowers",
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with train/ and val/, or of class folders; or the name of a data set "
            "of tensorflow-datasets. \\[default: the recipe's]"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path(
        "runs/flowers"
    ),
    validation_split: Annotated[
        float | None, typer.Option(help="Share of the images that validate, if not apart.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network: resnet50.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="What to start from: a file, or imagenet (a download).")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, on all devices.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes all that is random.")] = None,
    max_bad: Annotated[
        float | None, typer.Option(help="Share of broken files that is borne.")
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits each time.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any value of the recipe: --set augmentation.mixup=0.2"),
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. \\[default: an epoch]", min=1)
    ] = None,
    devices: Annotated[int, typer.Option(help="GPUs that share each batch.", min=1)] = 1,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first process (KERAS_BACKEND=jax).")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many processes train.", min=1)] = 1,
    process_id: Annotated[int, typer.Option(help="Which one this is, from 0.", min=0)] = 0,
    debug: Debug = False,
):
    """Train a network; run again after an interruption, it goes on.

    [bold]Example:[/bold] keras-resnet train --data photos --validation-split 0.2 --epochs 10
    """
    training = _import("training")
    log_to_stdout()
    given = {
        "data": data,
        "validation_split": validation_split,
        "model": model,
        "weights": weights,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "max_bad": max_bad,
        "deterministic": deterministic,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= dict(map(_assignment, set_ or ()))
    if Path(recipe).suffix == ".json":
        chosen = training.Recipe.from_json(Path(recipe).read_text(encoding="utf-8"))
    else:
        chosen = training.named_recipe(recipe)
    training.train(
        chosen.changed(changes),
        output,
        placement=training.Placement(devices, coordinator, processes, process_id),
        save_every=save_every,
        command=shlex.join(["keras-resnet", *sys.argv[1:]]),
    )


def _assignment(text):
    """The name and the value of --set name=value; a value that is no JSON is a string."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set takes name=value. Received: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


class _Lines(logging.Handler):
    """Prints through sys.stdout as it is then: a progress bar puts itself in its place."""

    def emit(self, record):
        print("\n".join(map(_printable, self.format(record).splitlines())))


def log_to_stdout():
    """Prints what the package logs."""
    logger = logging.getLogger("keras_resnet")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Lines()]


@app.command()
def evaluate(
    data: Annotated[
        str,
        typer.Option(
            help="A folder (of its parts val), a .npz file with x and y, or the name of a data "
            "set of tensorflow-datasets."
        ),
    ],
    run: Annotated[Path | None, typer.Option(help="Folder of a training.")] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A CSV file of all answers.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Say how often a network is right on labelled images.

    [bold]Example:[/bold] keras-resnet evaluate --run runs/flowers --data photos
    """
    training = _import("training")
    found, skipped = training.evaluate_on(
        data, run=run, model=model, weights=weights, image_size=image_size, resize=resize
    )
    if output:
        found.write(output)
    summary = {
        "images": len(found.rows),
        "left_out": len(skipped),
        "top1": found.top1,
        "top5": found.top5,
    }
    if as_json:
        print(json.dumps({**summary, "skipped": skipped.reasons}, indent=2))
        return
    for name, reason in skipped.reasons.items():
        print(_printable(f"Left out {name}: {reason}."))
    print(
        f"top-1 {found.top1:.4f}, top-5 {found.top5:.4f}, {len(found.rows)} images, "
        f"{len(skipped)} left out"
    )


@app.command()
def export(
    run: Annotated[Path | None, typer.Argument(help="Folder of a training.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="saved_model, onnx, litert or openvino.")
    ] = "saved_model",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder of a SavedModel's versions, or the file. "
            "\\[default: in the run folder]",
        ),
    ] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    no_fold: Annotated[
        bool, typer.Option("--no-fold", help="SavedModel: keep batch normalization.")
    ] = False,
    top: Annotated[
        int, typer.Option(help="SavedModel: how many classes an answer names.", min=1)
    ] = 5,
    warmup: Annotated[
        bool,
        typer.Option("--warmup", help="SavedModel: add requests for TensorFlow Serving to start."),
    ] = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Files: take images of any size.")
    ] = False,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="ONNX: take pixels, 0 to 255.")
    ] = False,
    quantize: Annotated[
        str | None, typer.Option(help="ONNX and LiteRT: int8; LiteRT: dynamic.")
    ] = None,
    representative_data: Annotated[
        Path | None, typer.Option(help="For int8: a folder of images as it will see.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Export a network for other systems, and compare its answers with the model's.

    Beside the export or in it, export.json says what it takes, gives and differs by.

    [bold]Example:[/bold] keras-resnet export runs/flowers --format onnx
    """
    training = _import("training")
    log_to_stdout()
    with quiet():  # the runtimes greet too
        path = training.export_network(
            format_,
            output,
            run=run,
            model=model,
            weights=weights,
            image_size=image_size,
            resize=resize,
            fold=not no_fold,
            top_k=top,
            warmup=warmup,
            any_size=any_size,
            with_preprocessing=with_preprocessing,
            quantize=quantize,
            representative_data=representative_data,
        )
    record = _import("export.record").read(path)
    if as_json:
        print(json.dumps({"path": str(path), **record}, indent=2))
    else:
        print(f"{path}: {_compared(record['compared_on'], record['error'], record['agreement'])}")


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(help="A SavedModel's version folder, a .onnx, .tflite or .xml file.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    run: Annotated[
        Path | None, typer.Option(help="Folder of a training. \\[default: that it lies in]")
    ] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Have an exported network and its model answer the same images.

    Ends with 1 if they differ by more than rounding explains, or, quantised, on the best class of
    more than 5 %.

    [bold]Example:[/bold] keras-resnet verify runs/flowers/onnx/model.onnx rose.jpg tulip.jpg
    """
    training = _import("training")
    with quiet():
        found = training.verify_export(path, images, run=run, model=model, weights=weights)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print(f"{path}: {_compared(found.images, found.error, found.agreement)}")
    found.check(path)


def _compared(images, error, agreement):
    """A comparison with the model, in words."""
    same = "" if agreement is None else f", the best class is the same on {agreement:.1%}"
    return (
        f"beside the model on {images} images, the largest difference is {error:.1e} of the "
        f"largest value{same}."
    )


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    run: Annotated[Path, typer.Option(help="Folder of a training.")] = Path("runs/flowers"),
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    as_json: Json = False,
    debug: Debug = False,
):
    """Name what is on images.

    [bold]Example:[/bold] keras-resnet predict rose.jpg --run runs/flowers
    """
    answers = _import("training").Run.open(run).name_files(images, top=top)
    if as_json:
        rows = [
            {
                "file": str(file),
                "classes": [name for name, _ in answer],
                "probabilities": [probability for _, probability in answer],
            }
            for file, answer in answers.items()
        ]
        print(json.dumps(rows, indent=2))
        return
    for file, answer in answers.items():
        print(_printable(f"{file}:"))
        for name, probability in answer:
            print(_printable(f"  {probability:.4f}  {name}"))


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    run: Annotated[Path | None, typer.Option(help="Folder of a training.")] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="What to look for. \\[default: the best class]")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Whose feature map: layer3.1. \\[default: the last block]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Picture to write. \\[default: NAME_explained.png]"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Draw where in an image a network sees what speaks for a class (Grad-CAM).

    [bold]Example:[/bold] keras-resnet explain rose.jpg --run runs/flowers
    """
    found = _import("training").explain(
        image,
        output,
        run=run,
        model=model,
        weights=weights,
        image_size=image_size,
        resize=resize,
        class_name=class_,
        layer=layer,
    )
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "picture": str(found.picture)}, indent=2))
    else:
        print(_printable(f"{found.picture}: {found.class_name}, {found.probability:.4f}"))


if __name__ == "__main__":
    main()
