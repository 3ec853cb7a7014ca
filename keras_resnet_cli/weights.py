"""Commands for weights files."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import (
    Debug,
    Json,
    NetworkVersion,
    Prefix,
    output_file,
    output_folder,
    with_network,
)
from keras_resnet_cli.terminal import printable, subpackage

File = Annotated[
    str, typer.Argument(help="A weights file, a folder with a config.json, or hf://owner/name.")
]
# Attributes of `inspect`'s result that are plain text.
WORDS = ("layout", "head", "preprocessing", "call")


def list_(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Name or pattern of the networks to list: resnet50, 'seresnet*'."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="List only networks with published weights.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """List all networks by family, or the published weights of some of them.

    [bold]Example:[/bold] keras-resnet list resnet50
    """
    registry = subpackage("weights.registry")
    names = subpackage("models").list_models(pattern or "*", pretrained=pretrained)
    if not names:
        if not set(pattern or "*") & set("*?["):
            registry.list_weights(pattern)  # raises an error that suggests a name
        raise ValueError(f"No network {'with published weights ' * pretrained}matches {pattern!r}.")
    weights = {name: registry.list_weights(name) for name in names}
    if as_json:
        rows = [row for of_one in weights.values() for row in of_one]
        print(json.dumps([{**dataclasses.asdict(row), "file": row.file} for row in rows], indent=2))
        return
    if not pattern:
        print(OVERVIEW.format("network", "weights", "best top-1, at, of"))
    for kind, of_it in subpackage("kinds").by_kind(names).items():
        print(f"{kind.name}: {kind.about}")
        for name in of_it:
            if pattern:
                _print_weights(name, weights[name])
            else:
                best = registry.best_of(name)
                said = "{:.3f}  {} px  ".format(*best.best) + best.name if best else ""
                print(OVERVIEW.format(name, len(weights[name]) or "", said).rstrip())


OVERVIEW = "  {:22} {:>7}  {}"
IN_FULL = "    {:24}{:>7}{:>5}{:>8}{:>5}{:>9}  {}"


def _print_weights(name, weights):
    """Prints a network's weights, one line each, with the accuracy at one or two image sizes."""
    if not weights:
        print(f"  {name}: none are published")
        return
    titles = IN_FULL.format("", "top-1", "px", "top-1", "px", "classes", "licence")
    print(f"  {name}{titles[2 + len(name) :]}")
    for row in weights:
        first, second = (
            "" if accuracy is None else f"{accuracy:.3f}"
            for accuracy in (row.accuracy, row.test_accuracy)
        )
        sides, classes = (row.crop, row.test_crop or ""), row.classes or "none"
        cells = (first, sides[0], second, sides[1], classes, row.licence or "unknown")
        print(IN_FULL.format(row.name, *cells).rstrip())


def inspect(
    file: File,
    prefix: Prefix = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Show the tensors in a weights file, and which network they belong to.

    The file is only read: no code in it is imported or executed.

    [bold]Example:[/bold] keras-resnet inspect resnet50-0676ba61.pth
    """
    found = subpackage("weights").inspect(file, prefix=prefix)
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
            **{name: getattr(found, name) for name in WORDS},
            "tensors": [
                dict(zip(("name", "dtype", "shape", "bytes"), row, strict=True)) for row in rows
            ],
        }
        print(json.dumps(summary, indent=2))
        return
    width = min(max((len(name) for name, *_ in rows), default=0), 80)
    for name, dtype, shape, _ in rows:
        print(f"{printable(name):{width}}  {dtype:8}  {shape}")  # in 80 columns
    print(f"\n{found.path}: {found.size:,} bytes, {found.container} container")
    print(f"sha256        {found.sha256}")
    print(f"tensors       {len(rows)}, {sum(t.size for t in found.tensors.values()):,} numbers")
    print(f"architecture  {printable(found.architecture.text)}")
    print(f"published     {published or 'not among the known published weights'}")
    for name in WORDS:
        print(f"{name:13} {printable(getattr(found, name))}")


def convert(
    file: File,
    output: Annotated[
        Path,
        output_file("File to write, .keras, .weights.h5, .safetensors or .pth."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of the network, resnet50 for example, if it cannot be recognized from the "
            "file."
        ),
    ] = None,
    version: NetworkVersion = None,
    prefix: Prefix = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the network's outputs before and after."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Convert a weights file between the formats of PyTorch, safetensors and Keras.

    [bold]Example:[/bold] keras-resnet convert resnet50-0676ba61.pth -o resnet50.keras --verify
    """
    variant, classes, difference = subpackage("conversion").convert(
        file, output, model=model, version=version, prefix=prefix, verify=verify
    )
    if as_json:
        found = {"file": str(output), "model": variant, "classes": classes}
        print(json.dumps({**found, "difference": difference}, indent=2))
        return
    head = f"{classes} classes" if classes else "no head"
    print(f"{output}: {variant}, {head}")
    if verify:
        print(f"Verified: the largest difference between the outputs is {difference:g}.")


def download(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a network, resnet50 for example, or of a published file; or "
            "hf://owner/name."
        ),
    ],
    weights: Annotated[
        str,
        typer.Option(
            help="Which weights: imagenet, or a name listed by `keras-resnet list resnet50`."
        ),
    ] = "imagenet",
    as_json: Json = False,
    debug: Debug = False,
):
    """Download published weights to the cache, and check their hash.

    The cache is KERAS_RESNET_HOME (default: ~/.keras/models); KERAS_RESNET_WEIGHTS_URL sets a
    mirror to download from. Files of the Hugging Face hub go to its own cache, HF_HOME.

    [bold]Example:[/bold] keras-resnet download resnet50 --weights IMAGENET1K_V2
    """
    registry, hub = subpackage("weights.registry"), subpackage("weights.hub")
    if hub.is_address(model):
        file = hub.weights_file(model)
        subpackage("weights").preprocessing_of(model)  # downloads the description too
        print(json.dumps({"file": str(file)}, indent=2) if as_json else file)
        return
    row = registry.find_file(model) or registry.find(model, weights)
    file = subpackage("weights").download(row)
    found = {"file": str(file), "model": row.model, "weights": row.name}
    print(json.dumps(found, indent=2) if as_json else file)


@with_network
def save_hub(
    network,
    output: Annotated[Path, output_folder("Folder to write.")],
    as_json: Json = False,
    debug: Debug = False,
):
    """Save a network as a folder for the Hugging Face hub, in timm's and transformers' formats.

    The folder is not uploaded.

    [bold]Example:[/bold] keras-resnet save-hub --run runs/flowers -o flowers
    """
    folder = network().save_hub(output)
    upload = shlex.join(["hf", "upload", "OWNER/NAME", str(folder)])
    print(json.dumps({"folder": str(folder)}, indent=2) if as_json else f"{folder}\nNext: {upload}")
