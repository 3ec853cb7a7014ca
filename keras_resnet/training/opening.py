"""A trained network, from a run folder or from a file of weights."""

import dataclasses
import logging
from pathlib import Path

import keras

from keras_resnet.configs import CONFIGS
from keras_resnet.conversion import build_found, look_into
from keras_resnet.export.network import checked_names
from keras_resnet.preprocessing import Preprocessing, imagenet_classes
from keras_resnet.training import naming
from keras_resnet.training.run import BEST, Run
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.assigning import assign
from keras_resnet.weights.loading import locate
from keras_resnet.weights.registry import find_file

logger = logging.getLogger("keras_resnet")


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
        return naming.name_files(self.model, self.preprocessing, names, files, top)

    def name_each(self, files, *, top=5, skipped=None):
        """The most probable classes of any number of image files, in their order.

        Args:
            files: Their paths.
            top: How many classes.
            skipped: A `data.Skipped` that is told of those that cannot be decoded.

        Yields:
            (path, [(class name, probability), ...], the best first) of each that can be decoded.
        """
        names = checked_names(self.model, self.class_names)
        return naming.name_each(self.model, self.preprocessing, names, files, top, skipped)


def open_network(
    run=None, model=None, weights=None, *, classes=None, preprocessing=None
) -> Network:
    """Opens a run's network, or any with weights.

    Args:
        run: A run folder.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.
        classes: How many classes the file of weights should have. Default: as many as it has.
        preprocessing: A `Preprocessing`, or {name: value} of what of it differs from the run's,
            the published weights', or what is assumed of any other file, and logged: ImageNet's
            mean and deviation, and the sides that the network was made for, 256 and 224, or 32 of
            CIFAR networks. With another `crop` alone, `resize` is 256 / 224 of it.

    Raises:
        ValueError: if there is no such run or network, or the arguments do not fit one another.
    """
    if (run is None) == (model is None) or (model is None) != (weights is None):
        raise ValueError("Pass either run, or model and weights.")
    if run is not None:
        finished = Run.open(run)
        used = _changed(finished.preprocessing, preprocessing)
        if used.crop != finished.preprocessing.crop:
            raise ValueError(
                f"The network of {run} takes images of {finished.preprocessing.crop} px. Leave "
                f"crop (--image-size) out. Received: crop={used.crop}"
            )
        network = finished.model()
        names, file = finished.class_names, finished.folder / BEST
    else:
        file = locate(weights, model)
        network = _classifier(file, model, classes)
        published, family = find_file(file.name), CONFIGS[model].family
        usual = Preprocessing(family.resize, family.image_size)
        usual = published.preprocessing if published else usual
        used = _changed(usual, preprocessing)
        assumed = used.mean == usual.mean and used.std == usual.std and not published
        logger.info(
            "%s: images are resized to %d px, cropped to %d, and normalised by the mean %s and the "
            "deviation %s%s.",
            file.name,
            used.resize,
            used.crop,
            used.mean,
            used.std,
            ", ImageNet's, as most are; --mean and --std say others" if assumed else "",
        )
        names = None
        if network.output_shape[-1] == len(imagenet_classes()):
            names = tuple(name for _, name in imagenet_classes())
    return Network(network, used, names, file)


def _changed(usual, preprocessing) -> Preprocessing:
    """The usual preprocessing with the values that are given."""
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    given = dict(preprocessing or {})
    if given.get("crop", usual.crop) != usual.crop:
        given = {"resize": Preprocessing.for_crop(given["crop"]).resize, **given}
    return dataclasses.replace(usual, **given)


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
