"""A trained network, from a run folder or from a file of weights."""

import dataclasses
from pathlib import Path

import keras

from keras_resnet.configs import CONFIGS
from keras_resnet.conversion import build_found, look_into
from keras_resnet.export.network import checked_names
from keras_resnet.preprocessing import Preprocessing, imagenet_classes
from keras_resnet.training.naming import name_files
from keras_resnet.training.run import Run
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.loading import locate
from keras_resnet.weights.registry import find_file
from keras_resnet.weights.state_dict import assign


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

    def name_files(self, files, *, top=5) -> dict[Path, list[tuple[str, float]]]:
        """The most probable classes of image files, by number where nobody knows their names.

        Arguments, answer and errors are those of `Run.name_files`.
        """
        names = checked_names(self.model, self.class_names)
        return name_files(self.model, self.preprocessing, names, files, top)


def open_network(
    run=None, model=None, weights=None, *, classes=None, image_size=None, resize=None
) -> Network:
    """Opens a run's network, or any with weights.

    Args:
        run: A run folder.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.
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
        network = _classifier(file, model, classes)
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


def _classifier(file, model, classes):
    """The network that a file of weights is of, with probabilities."""
    state, found = look_into(file, model)
    if found.classes is None:
        raise CheckpointError(
            f"{file} has no head, and names no classes. Load it into a model with "
            "include_top=False, and use that."
        )
    if classes not in (None, found.classes):
        raise CheckpointError(f"{file} has {found.classes} classes; {classes} are needed.")
    network = build_found(found, classifier_activation="softmax")
    assign(network, state, file.name)
    return network
