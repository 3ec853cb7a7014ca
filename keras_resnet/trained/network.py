"""A trained network, from a run folder or from weights: `Network`."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import visualize
from keras_resnet.configs import CONFIGS
from keras_resnet.conversion import build_found, look_into
from keras_resnet.data import Skipped
from keras_resnet.export.network import checked_names
from keras_resnet.models import at_size
from keras_resnet.preprocessing import Preprocessing, imagenet_classes
from keras_resnet.trained import exporting, prediction
from keras_resnet.trained.evaluation import Evaluation, evaluate_on
from keras_resnet.trained.multi_label import MultiLabelEvaluation
from keras_resnet.trained.run import BEST, Run, newest_run
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.assigning import assign
from keras_resnet.weights.description import class_names_of, preprocessing_of, thresholds_of
from keras_resnet.weights.loading import locate
from keras_resnet.weights.registry import is_name
from keras_resnet.weights.sharing import save_hub

logger = logging.getLogger("keras_resnet")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of `Network.explain`.

    Args:
        picture: The image file that was written.
        class_name: The explained class.
        probability: Probability of this class.
    """

    picture: Path
    class_name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network with its preprocessing and class names.

    Args:
        model: The model, from normalised images to probabilities.
        preprocessing: The evaluation transform.
        class_names: Class names; None if unknown.
        file: File of its weights.
        run: Its run folder, if it has one.
        thresholds: Least probability at which each class is predicted, for a network that was
            trained on images with several labels; else None.

    Example:
    >>> network = keras_resnet.trained.Network.from_run("runs/flowers")  # doctest: +SKIP
    >>> dict(network.predict(["daisy.jpg"], top=1))  # doctest: +SKIP
    {PosixPath('daisy.jpg'): [('daisy', 0.97)]}
    """

    model: keras.Model
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    file: Path
    run: Run | None = None
    thresholds: tuple[float, ...] | None = None

    @classmethod
    def from_run(
        cls,
        folder: str | Path | None = None,
        *,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    ) -> "Network":
        """Opens the best network of a run.

        Args:
            folder: The run folder. Default: the newest finished one in `runs`.
            preprocessing: A `Preprocessing`, or {name: value} for fields that differ from the
                run's. If only `crop` is changed, `resize` changes in the same ratio.

        Raises:
            ValueError: if the run does not exist.
        """
        run = Run.open(newest_run() if folder is None else folder)
        used = _changed(run.preprocessing, preprocessing)
        model = run.model()
        if used.crop != run.preprocessing.crop:
            model = at_size(model, used.crop)
        return cls(model, used, run.class_names, run.folder / BEST, run, run.thresholds)

    @classmethod
    def from_weights(
        cls,
        model: str | None,
        weights: str | Path,
        *,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        prefix: str | None = None,
        version: str | None = None,
    ) -> "Network":
        """Builds a network and loads its weights.

        Args:
            model: One of `keras_resnet.list_models()`. Default: recognized from the weights;
                required for the name of published weights.
            weights: A file, a folder with a config.json, "hf://owner/name", or the name of
                published weights.
            preprocessing: A `Preprocessing`, or {name: value} for fields that differ from
                `weights.preprocessing_of`. If that is None, ImageNet's mean and standard deviation
                are assumed, and the usual sizes, 256 and 224, or 32 for CIFAR networks, and this is
                logged. If only `crop` is changed, `resize` changes in the same ratio.
            prefix: Prefix of the network to load, if the file contains several: "teacher".
            version: Position of the stride in bottleneck blocks, as for the builders. Default: that
                of the file, else "v1.5".

        Raises:
            ValueError: if the network does not exist, or has no classifier; or if the weights need
                unsupported preprocessing, like the BGR images of keras.applications, and neither
                mean nor std is given.
        """
        if model is None and is_name(weights):
            raise ValueError(f"Several networks have weights named {weights}. Pass model.")
        file = locate(weights, str(model))
        network, variant, thresholds, pixels, other = _classifier(file, model, version, prefix)
        if isinstance(preprocessing, Preprocessing):
            said, given = None, True
        else:
            said = preprocessing_of(weights, model)
            given = not {"mean", "std"}.isdisjoint(preprocessing or {})
        family, pixels = CONFIGS[variant].family, pixels or (*CONFIGS[variant].pixels.values(),)
        usual = said or Preprocessing(family.resize, family.image_size, *pixels)
        used = _changed(usual, preprocessing)
        assumed = not (said or given or pixels)
        if other and not (said or pixels):
            _refuse_or_warn(file, other, assumed)
        logger.info(
            "%s: images are resized to %s px (%s, %s), cropped to %s, and normalised by mean %s "
            "and standard deviation %s%s.",
            file.name,
            used.resize,
            used.crop_mode,
            used.interpolation,
            used.crop,
            used.mean,
            used.std,
            ", the values of ImageNet; pass mean and std for others" if assumed else "",
        )
        names, classes = class_names_of(file), network.output_shape[-1]
        if names is not None and len(names) != classes:
            raise CheckpointError(
                f"The config.json next to {file} names {len(names)} classes; the file has "
                f"{classes}."
            )
        if names is None and classes == len(imagenet_classes()):
            names = tuple(name for _, name in imagenet_classes())
        return cls(network, used, names, file, thresholds=thresholds)

    def predict(
        self,
        files: Iterable[str | Path],
        *,
        top: int | None = None,
        skipped: Skipped | None = None,
        flip: bool = False,
    ) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
        """Classifies image files, in their order.

        Args:
            files: Paths of image files, or of folders of images.
            top: Number of classes for each image. Default: 5; of a multi-label network, those that
                reach their thresholds.
            skipped: Collects images that cannot be decoded, which are skipped. Without it they are
                logged.
            flip: Whether to average the probabilities with those of the mirrored images, which
                takes twice as long.

        Yields:
            (path, [(class name, probability), ...]) of each image that can be decoded, highest
            probability first. Without class names, the class index as a string.

        Raises:
            ValueError: if there are no files, or, without `skipped`, if none can be decoded.
        """
        names = checked_names(self.model, self.class_names)
        return prediction.predict(
            self.model, self.preprocessing, names, files, top, skipped, self.thresholds, flip
        )

    def probabilities(self, images: Iterable[bytes], *, flip: bool = False) -> np.ndarray:
        """Computes the class probabilities of encoded images.

        Args:
            images: Contents of JPEG, PNG, GIF, BMP or WebP files, bytes.
            flip: As for `predict`.

        Returns:
            float32 (images, classes).

        Raises:
            ValueError: if there are no images, or one cannot be decoded; the message has its
                position.
        """
        return prediction.probabilities(self.model, self.preprocessing, images, flip)

    def evaluate(
        self, data: str | Path, *, flip: bool = False
    ) -> Evaluation | MultiLabelEvaluation:
        """Evaluates the network on labelled images.

        Args:
            data: A folder, a table (`.csv` or `.parquet`), a `.npz` file or the name of a
                tensorflow-datasets data set. If it has a validation part, that is used. Of a folder
                without parts that the network was trained on, even if it was moved, the images set
                aside for validation are used; of another folder, all images. `counted` and
                `trained` of the result describe them.
            flip: As for `predict`.

        Returns:
            An `Evaluation`, or of a multi-label network a `MultiLabelEvaluation`.

        Raises:
            ValueError: if the data does not exist, its classes differ from the network's, or only
                one of them is multi-label.
        """
        return evaluate_on(data, self, flip)

    def explain(
        self,
        image: str | Path,
        output: str | Path | None = None,
        *,
        class_name: str | None = None,
        layer: str | None = None,
    ) -> Explanation:
        """Draws an image and its Grad-CAM heat map.

        Args:
            image: Path of the image file.
            output: Image file to write. Default: `NAME_explained.png` in the current folder.
            class_name: The class to explain. Default: the most probable one.
            layer: As for `visualize.grad_cam`.

        Raises:
            ValueError: if the class or the layer does not exist, or the image cannot be decoded.
        """
        image, names = Path(image), checked_names(self.model, self.class_names)
        if class_name is not None and class_name not in names:
            some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise ValueError(f"Unknown class. The classes are {some}. Received: {class_name!r}")
        pixels = self.preprocessing.batch({str(image): image.read_bytes()}, normalise=False)
        inputs = self.preprocessing.normalise(pixels).numpy()
        answer = self.model.predict_on_batch(inputs)[0]
        index = int(answer.argmax()) if class_name is None else names.index(class_name)
        picture = visualize.explanation(
            pixels[0],
            visualize.grad_cam(self.model, inputs[0], index, layer=layer),
            f"{names[index]}: {answer[index]:.3f}",
            output or f"{image.stem}_explained.png",
        )
        return Explanation(picture, names[index], float(answer[index]))

    def save_hub(self, folder: str | Path) -> Path:
        """Saves the network as a folder for the Hugging Face hub, with a model card from its run.

        Args:
            folder: As for `weights.save_hub`.

        Returns:
            The folder.

        Raises:
            ValueError: if the network is not one of `list_models()`.
            OSError: if the folder cannot be written.
        """
        said = {} if self.run is None else self.run.card()
        return save_hub(
            self.model,
            folder,
            preprocessing=self.preprocessing,
            class_names=self.class_names,
            thresholds=self.thresholds,
            **said,
        )

    def export(self, format: str, output: str | Path | None = None, **options: Any) -> Path:
        """Exports the network, and compares the export's predictions with the model's.

        Args:
            format: "saved_model", "onnx", "litert" or "openvino".
            output: File to write, or for a SavedModel the folder of its versions. Default: in the
                run folder, `saved_model` or for example `onnx_int8/model.onnx`, or with a layer
                `onnx_layer3/model.onnx`.
            **options: Arguments of `export.saved_model`, `export.onnx`, ...; `any_size=True` for a
                file that accepts images of any size.

        Returns:
            The version folder or the file.

        Raises:
            ValueError: if an argument is invalid, or the export's predictions differ from the
                model's.
        """
        return exporting.export_network(self, format, output, **options)


def open_network(
    run: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    *,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    prefix: str | None = None,
    version: str | None = None,
) -> Network:
    """Opens a network from a run folder or from weights.

    Args:
        run: As for `Network.from_run`.
        model: As for `Network.from_weights`; needs `weights`.
        weights: As for `Network.from_weights`, instead of `run`.
        preprocessing: As for either.
        prefix: As for `Network.from_weights`.
        version: As for `Network.from_weights`.

    Raises:
        ValueError: if the run or the network does not exist, or the arguments contradict each
            other.
    """
    if model is None and weights is None and prefix is None and version is None:
        return Network.from_run(run, preprocessing=preprocessing)
    if run is None and weights is not None:
        return Network.from_weights(
            model, weights, preprocessing=preprocessing, prefix=prefix, version=version
        )
    raise ValueError(
        "Pass either run or weights. With weights, model, prefix and version may be passed too."
    )


def _changed(usual, preprocessing) -> Preprocessing:
    """Replaces the usual preprocessing, or some of its fields, by the given values."""
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    given = dict(preprocessing or {})
    return dataclasses.replace(usual.of_side(given.get("crop", usual.crop)), **given)


def _refuse_or_warn(file, other, assumed):
    """Raises an error, or warns, if a network needs or may need other images than RGB."""
    about = (
        f"{file.name} may expect different preprocessing than most networks: {other.rstrip('.')}."
    )
    advice = (
        "Here, images are RGB in 0..1, minus a mean, divided by a standard deviation; BGR is not "
        "supported."
    )
    if assumed:
        raise CheckpointError(
            f"{about} {advice} If that is what the network expects, pass mean and std."
        )
    logger.warning("%s %s", about, advice)


def _classifier(file, model, version, prefix):
    """Builds the classifier of a weights file; also returns its name, thresholds and images."""
    checkpoint, state, found, version = look_into(file, model, version, prefix)
    if found.classes is None:
        raise CheckpointError(
            f"{file} has no classifier. Load it into a model with include_top=False."
        )
    thresholds = thresholds_of(file, found.classes)
    probabilities = "softmax" if thresholds is None else "sigmoid"  # of each class by itself
    network = build_found(found, version, classifier_activation=probabilities)
    assign(network, state, file.name)
    images = checkpoint.origin.pixels, checkpoint.other_images(version)
    return network, found.variant, thresholds, *images
