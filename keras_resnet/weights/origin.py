"""The origin of a weights file, from its metadata or a config.json next to it: `origin_of`.

Different networks may have equal names and shapes, for example with anti-aliasing, with the stride
in another position, or with another activation. Only the origin distinguishes them.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.configs import CONFIGS, IMAGENET
from keras_resnet.files import read_json
from keras_resnet.weights import registry
from keras_resnet.weights.errors import CheckpointError, UnsafeFileError
from keras_resnet.weights.hub import ADVICE, CONFIG

MAX_OPTIONS = 2**20  # maximum number of characters to search
MAX_KERAS = (
    2**24
)  # maximum size of the config.json in a `.keras` file, in bytes; ResNet-1202's has 1 MB
STYLES = {"caffe": "v1", "pytorch": "v1.5"}  # OpenMMLab's names for the position of the stride
VERSION = "keras_resnet.version"  # in the metadata of files saved by this package
VERSIONS = ("v1", "v1.5")
# Classes of this package in a Keras file.
BLOCKS = re.compile(r"(Preactivation)?(Basic|Bottleneck)Block")
ANTI_ALIASING = "keras_resnet.anti_aliasing"  # likewise: "avg", "blur" or "none"
BLURS = {
    "avg": "downsamples by average pooling (anti-aliasing)",
    "blur": "blurs before downsampling (anti-aliasing)",
    "none": "has no anti-aliasing",
}
# timm's older names, with the author of the weights before and the variant after the network.
OLDER = re.compile(r"(?:tv|gluon|ssl|swsl|ig)_(\w+?)(?:_v1([bcds]))?")
# Features of timm's networks, by their names, that this package does not have.
DIFFERENCES = (
    (r"_pruned", "has pruned channels"),
    (r"_gn\b|_bit", "has group normalization"),
    (r"_bit", "standardizes its kernels"),
    (r"_evos", "has EvoNorm"),
    (r"_frn", "has filter response normalization"),
    (r"nf_|nfnet", "normalizes its kernels, not its activations"),
    (r"resnest", "has split attention"),
    (r"^sk", "has selective kernels"),
    (r"res2ne", "has a hierarchy of convolutions in each block"),
    (r"^gc", "has global context attention"),
    (r"^legacy_", "pools and strides as Caffe's SENets do"),
    (r"_clip|_mlp", "has the stem of CLIP's networks"),
    (r"\dts\b|\dq\b", "has SiLU, and a different stem"),
    (r"bot|halo|lambda|lamhalo|^bat_", "has self-attention in its blocks"),
    (r"^cs|tresnet", "has stages or a stem of another kind"),
    (r"^test_", "mixes kinds of blocks, for tests"),
)
# Arguments of timm's networks that do not change the outputs, or are visible in the shapes.
HARMLESS = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "global_pool", "pretrained"}


@dataclasses.dataclass(frozen=True)
class Origin:
    """What is known about the origin of a network; all fields are empty if nothing is.

    Args:
        said_by: Where it is specified: "config.json", "its metadata" or "its name".
        name: The network's name, as used by its library.
        differences: Features that no network of this package has.
        version: Position of the stride in bottlenecks, as for the builders; None if unknown.
        anti_aliasing: As for `ResNetConfig`, but "none" for None; None if unknown.
        variant: Its name in CONFIGS, if known.
        preprocessing: Description of the preprocessing, from its metadata.
        pixels: Mean and standard deviation in 0..1, if the images are known to be RGB.
        output_stride: As for the builders; less than 32 if it is dilated.
    """

    said_by: str = ""
    name: str = ""
    differences: tuple[str, ...] = ()
    version: str | None = None
    anti_aliasing: str | None = None
    variant: str | None = None
    preprocessing: str = ""
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    output_stride: int = 32

    def refuse_others(
        self, source: object, version: str | None, output_stride: int, anti_aliasing: str
    ) -> None:
        """Raises a CheckpointError if the network differs from such a model."""
        if self.differences:
            raise CheckpointError(
                f"{source} is for a different network, even if its keys match: according to "
                f"{self.said_by}, it is {self.name}, which {' and '.join(self.differences)}. This "
                "package has no such network; choose another file."
            )
        if self.version and version and version != self.version:
            raise CheckpointError(
                f"{source} is for bottleneck blocks with the stride in another position, according "
                f"to {self.said_by} ({self.name}). Build the model with version={self.version!r}."
            )
        if self.anti_aliasing not in (None, anti_aliasing):
            call = f"keras_resnet.create({self.variant!r})" if self.variant else "another model"
            raise CheckpointError(
                f"{source} is for a different network, even if its keys match: according to "
                f"{self.said_by}, it is {self.name}, which {BLURS[self.anti_aliasing]}. The model "
                f"{BLURS[anti_aliasing]}. Use {call}."
            )
        if self.output_stride not in (32, output_stride):
            raise CheckpointError(
                f"{source} is for a dilated network, according to {self.said_by} ({self.name}). "
                f"Build the model with output_stride={self.output_stride}."
            )


def origin_of(path: Path, metadata: Mapping[str, str], saved: Any) -> Origin:
    """Returns the origin of a file.

    Args:
        path: The file; there may be a config.json next to it.
        metadata: The file's own metadata.
        saved: Its content, for the options of OpenMMLab and the author in detectron2's files.
    """
    said = metadata.get(VERSION), metadata.get(ANTI_ALIASING)
    if said[0] in VERSIONS or said[1] in BLURS:
        return _of_ours(*said, "its metadata")
    published = registry.find_file(path.name)
    if published:
        name = f"torchvision's {published.model} {published.name}"
        return Origin("its name", name, (), "v1.5", "none", published.model)
    beside = path.parent / CONFIG
    if beside.is_file():
        origin = read_json(beside, _understood, advice=ADVICE, error=CheckpointError)
        if origin.said_by:
            return dataclasses.replace(origin, said_by=f"the {CONFIG} next to it")
    if "architecture" in metadata:
        return _of_timm({**metadata, "model_args": None}, "its metadata")
    if isinstance(saved, dict):
        return _of_options(saved.get("meta")) or _of_author(saved.get("__author__")) or Origin()
    return Origin()


def of_keras(config: memoryview | None) -> Origin:
    """Returns the origin from the config.json in a `.keras` file; no objects are created from it.

    Raises:
        UnsafeFileError: if it is damaged.
    """
    if config is None:
        return Origin()
    if len(config) > MAX_KERAS:
        raise UnsafeFileError(f"its {CONFIG} has {len(config)} bytes")
    try:
        waiting, has_version = [json.loads(bytes(config))], False
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"its {CONFIG} is not valid JSON") from error
    said = set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            match = BLOCKS.fullmatch(str(item.get("class_name")))
            if match and isinstance(item.get("config"), dict):
                block = item["config"]
                said.add((str(block.get("version")), str(block.get("anti_aliasing") or "none")))
                has_version |= match[2] == "Bottleneck"
            item = list(item.values())
        waiting += item if isinstance(item, list) else []
    version, blurs = said.pop() if len(said) == 1 else (None, None)
    version = version if has_version and version in VERSIONS else None
    if blurs not in BLURS:
        return Origin()
    return _of_ours(version, blurs, f"the {CONFIG} in it")


def _of_ours(version, anti_aliasing, said_by, variant=None):
    """Makes the origin of a file of this package; unknown values become None."""
    of_version = f", of version={version!r}" if version in VERSIONS else ""
    blurs = anti_aliasing if anti_aliasing in BLURS else None
    name = f"keras_resnet's{of_version}"
    return Origin(said_by, name, (), version, blurs, variant)


def _of_author(author):
    return isinstance(author, str) and Origin("its metadata", f"by {author[:40]!r}")


def _of_options(meta):
    """Returns the origin from the training options in OpenMMLab's checkpoints, as Python text."""
    text = isinstance(meta, dict) and meta.get("config", meta.get("cfg"))
    if not isinstance(text, str) or "backbone=dict(" not in text:
        return None
    text = text[:MAX_OPTIONS]
    # The default is "pytorch".
    styles = {*re.findall(r"\bstyle=['\"](\w{1,20})['\"]", text)} or {"pytorch"}
    style = styles.pop()
    if styles or style not in STYLES:
        return None
    said = set(re.findall(r"\b(mean|std|to_rgb|bgr_to_rgb)=(\[[\d., ]{1,80}\]|True|False)", text))
    images = ", ".join(f"{name}={value}" for name, value in sorted(said))
    images = images and f"its options are {images:.400}, for values in 0..255; BGR without to_rgb"
    return Origin(
        *("its metadata", f"OpenMMLab's, of style={style!r}", (), STYLES[style]),
        preprocessing=images,
        pixels=_pixels(said),
    )


def _pixels(said):
    """Returns mean and standard deviation in 0..1, if the options specify RGB unambiguously."""
    said = {(name.removeprefix("bgr_"), value) for name, value in said}
    values = dict(said)
    if len(values) != len(said) or len(said) != 3 or values["to_rgb"] != "True":
        return None
    numbers = [re.findall(r"\d+\.?\d*", values[name]) for name in ("mean", "std")]
    if any(len(three) != 3 for three in numbers):
        return None
    mean, std = (tuple(float(number) / 255 for number in three) for three in numbers)
    return mean, std


def _understood(config):
    if isinstance(config.get("architecture"), str):
        return _of_timm(config, CONFIG)
    if isinstance(config.get("model_type"), str):
        return _of_transformers(config, CONFIG)
    own = config.get("keras_resnet")
    if isinstance(own, dict):  # from `save_hub`, for networks that timm does not have
        version, variant = own.get("version"), own.get("model")
        if version not in (None, *VERSIONS):
            raise ValueError(f"its version should be one of {VERSIONS}, not {_shown(version)}")
        row = CONFIGS.get(variant) if isinstance(variant, str) else None
        blurs = None if row is None else row.blurs
        return _of_ours(version, blurs, CONFIG, None if row is None else variant)
    return Origin()


def _of_timm(config, said_by):
    name, tagged = config["architecture"], config["architecture"].partition(".")[0]
    older = OLDER.fullmatch(tagged)
    variant = f"{older[1]}{(older[2] or '').removeprefix('b')}" if older else tagged
    row, differences = CONFIGS.get(variant), []
    if row is None or row.family is not IMAGENET:
        row, variant = None, None
        differences = [said for pattern, said in DIFFERENCES if re.search(pattern, name)]
        differences = differences[:2] or ["is of another family"]
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise TypeError("model_args should be an object")
    differences += [
        f"was made with {key[:40]}={_shown(arguments[key])}"
        for key in sorted(arguments.keys() - HARMLESS)[:3]
    ]
    if config.get("global_pool", "avg") not in ("avg", "", None):
        differences.append(f"pools by {_shown(config['global_pool'])}")
    # In timm, all bottlenecks stride on the 3x3 convolution; it has no effect on basic blocks.
    version = None if differences else "v1.5"
    blurs = None if row is None else row.blurs
    return Origin(said_by, f"timm's {name[:60]}", tuple(differences), version, blurs, variant)


def _shown(value):
    """Formats a value of a config in a few characters, whatever its size."""
    if isinstance(value, list) and len(value) < 9:
        return f"[{', '.join(map(_shown_alone, value))}]"
    return _shown_alone(value)


def _shown_alone(value):
    plain = value is None or isinstance(value, str | int | float)
    return repr(value[:40] if isinstance(value, str) else value)[:42] if plain else "..."


def _of_transformers(config, said_by):
    kind = config["model_type"]
    if kind != "resnet":  # its backbone may be a ResNet
        backbone = config.get("backbone_config") or config.get("backbone")
        if isinstance(backbone, str) and "/" not in backbone:
            origin = _of_timm({"architecture": backbone}, said_by)
            return dataclasses.replace(origin, output_stride=16 if config.get("dilation") else 32)
        if isinstance(backbone, dict) and backbone.get("model_type") == "resnet":
            return _of_transformers(backbone, said_by)
        return Origin()
    differences = []
    if config.get("hidden_act", "relu") != "relu":
        differences.append(f"has hidden_act={_shown(config['hidden_act'])}, not ReLU")
    if config.get("downsample_in_first_stage"):
        differences.append("strides in its first stage too (downsample_in_first_stage)")
    inside = bool(config.get("downsample_in_bottleneck"))
    has_bottlenecks = config.get("layer_type", "bottleneck") == "bottleneck"
    version = ("v1" if inside else "v1.5") if has_bottlenecks else None
    name = f"transformers' resnet with downsample_in_bottleneck={inside}"
    return Origin(said_by, name, tuple(differences), version, "none")
