"""A trained network, from a run folder or from a file of weights."""

import dataclasses
from pathlib import Path

import keras

from keras_resnet import models
from keras_resnet.configs import CONFIGS
from keras_resnet.preprocessing import Preprocessing, imagenet_classes
from keras_resnet.training.run import Run
from keras_resnet.weights import CheckpointError, load
from keras_resnet.weights.architecture import Architecture, recognise
from keras_resnet.weights.loading import locate, read
from keras_resnet.weights.registry import find_file


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network and what it needs.

    Args:
        model: From normalised images to probabilities.
        preprocessing: The evaluation transform.
        class_names: Names of the classes; None if nobody knows them.
        file: Where its weights came from.
    """

    model: keras.Model
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    file: Path


def open_network(
    run=None, model=None, weights=None, *, classes=None, image_size=None, resize=None
) -> Network:
    """Opens a run's network, or any with weights.

    Args:
        run: A run folder.
        model: Instead of a run, the name of a network,
        weights: and its weights: a file, or the name of published ones.
        classes: How many classes the file of weights should have. Default: as many as it has.
        image_size: Side of the images, in pixels. Default: the run's, or what the network was
            made for: 224, or 32 of CIFAR networks.
        resize: Length of their shorter side before the crop. Default: the run's or the weights',
            or 256 / 224 of `image_size`.

    Raises:
        ValueError: if there is no such run or network, or the arguments do not fit one another.
    """
    if (run is None) == (model is None) or (model is None) != (weights is None):
        raise ValueError("Pass either run, or model and weights.")
    if run is not None:
        finished = Run.open(run)
        if image_size not in (None, finished.preprocessing.crop):
            raise ValueError(
                f"The network of {run} takes images of {finished.preprocessing.crop} px. Leave "
                f"image_size out. Received: image_size={image_size}"
            )
        network, usual = finished.model(), finished.preprocessing
        names, file = finished.class_names, finished.folder / "best.keras"
    else:
        file = locate(weights, model)
        found = _architecture(file)
        network = models.create(model, classes=classes or found.classes, shortcut=found.shortcut)
        load(network, file)
        published, family = find_file(file.name), CONFIGS[model].family
        usual = Preprocessing(family.resize, family.image_size)
        usual = published.preprocessing if published else usual
        names = None
        if network.output_shape[-1] == len(imagenet_classes()):
            names = tuple(name for _, name in imagenet_classes())
    if image_size not in (None, usual.crop):
        usual = dataclasses.replace(
            usual, crop=image_size, resize=Preprocessing.for_crop(image_size).resize
        )
    preprocessing = dataclasses.replace(usual, resize=resize or usual.resize)
    return Network(network, preprocessing, names, file)


def _architecture(file):
    """The network that a file of weights is of, which has classes."""
    if file.suffix == ".h5":
        return Architecture("")  # which only a model can read: the network's own defaults
    found = recognise(read(file))
    if found.classes is None:
        raise CheckpointError(
            f"{file} has no head, and names no classes. Load it into a model with "
            "include_top=False, and use that."
        )
    return found
