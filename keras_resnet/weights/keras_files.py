"""Weights in files of Keras: this package's own, and those of keras.applications' ResNets.

Keras reads them. keras.applications' convolutions have a bias each, which the batch normalization
behind it takes over, and its epsilon differs.
"""

import re

import keras
import numpy as np

from keras_resnet.layers import BATCH_NORM_EPSILON
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.state_dict import to_state_dict, to_torch, variables_by_key

APPLICATIONS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "ResNet50",
    (3, 4, 23, 3): "ResNet101",
    (3, 8, 36, 3): "ResNet152",
}


def read(path, model, version="v1.5") -> dict[str, np.ndarray]:
    """The weights of a `.keras`, `.weights.h5` or `.h5` file under torchvision's names.

    Args:
        path: The file.
        model: The model that it is to be loaded into, or None; a `.h5` file does not say of which
            network it is.
        version: As of the builders, where there is no model.

    Raises:
        CheckpointError: if Keras cannot read it for this model.
    """
    if model is None and path.suffix == ".h5":
        raise CheckpointError(
            f"{path} does not say which network it is of: name it, by model (--model)."
        )
    try:
        if path.suffix == ".keras":
            saved = keras.saving.load_model(path, compile=False)
        else:
            saved = _twin(path, model)
            saved.load_weights(path)
        ours = not any(layer.name == "conv1_conv" for layer in saved.layers)
        state = to_state_dict(saved) if ours else _from_applications(saved)
    except CheckpointError:
        raise
    # Keras, h5py and zipfile promise nothing of what they raise on damaged and on other files.
    except Exception as error:
        name = f" for the model {model.name!r}" if model else ""
        raise CheckpointError(f"{path} cannot be read by Keras{name}: {error}") from error
    if not ours and not (_strides_first(model) if model else version == "v1"):
        raise CheckpointError(
            f"{path} is of keras.applications, whose bottlenecks stride on their first "
            "convolution. Build the model with version='v1'."
        )
    return state


def read_arrays(path) -> dict[str, np.ndarray]:
    """Every array of a `.h5` file, under its path there and in Keras' order of axes.

    Raises:
        CheckpointError: if it is no such file.
    """
    import h5py

    arrays = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    try:
        with h5py.File(path) as file:
            file.visititems(add)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read as an HDF5 file: {error}") from error
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _twin(path, model):
    """A new model that a file of weights fits: the head has as many classes as the file's."""
    import h5py

    with h5py.File(path) as file:
        layers = file.get("layers", {})
        names: list[str] = []
        file.visit(names.append)
        # The head's bias, in the format of Keras 3 and in that of Keras 2.
        heads = r"layers/dense/vars/1|.*predictions/bias(:0)?"
        bias = next((file[name] for name in names if re.fullmatch(heads, name)), None)
        if bias is not None and bias.nbytes > path.stat().st_size:
            raise CheckpointError(f"{path} claims a head that is larger than the file.")
        classes = None if bias is None else bias.shape[0]
        ours = any(name.startswith(("basic_block", "bottleneck_block")) for name in layers)
    return _clone(model, classes) if ours else _applications_model(path, model, classes)


def _clone(model, classes):
    def copy(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dense) and classes:
            config["units"] = classes
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy)


def _applications_model(path, model, classes):
    blocks = [re.match(r"layer(\d)\.(\d+)\.conv3\.weight", key) for key in variables_by_key(model)]
    stages = [match[1] for match in blocks if match]
    builder = APPLICATIONS.get(tuple(stages.count(stage) for stage in "1234"))
    if builder is None:
        raise CheckpointError(
            f"{path} is a file of keras.applications, or of a network that this package does not "
            f"know. They are read into {', '.join(APPLICATIONS.values())}, built with "
            f"version='v1'. Received: the model {model.name!r}"
        )
    channels = variables_by_key(model)["conv1.weight"].shape[2]
    first = keras.config.image_data_format() == "channels_first"
    return getattr(keras.applications, builder)(
        include_top=classes is not None,
        weights=None,
        classes=classes or 1000,
        # Any side will do: the weights are the same for all.
        input_shape=(channels, 224, 224) if first else (224, 224, channels),
    )


def _strides_first(model):
    versions = {getattr(layer, "version", "v1") for layer in model.layers}
    return versions <= {"v1"}


def _from_applications(saved):
    """Each bias goes into the mean behind it, and the surplus of epsilon into the variance."""
    state: dict[str, np.ndarray] = {}
    for layer in saved.layers:
        name = _torchvision_name(layer.name)
        weights = [keras.ops.convert_to_numpy(weight) for weight in layer.get_weights()]
        if name and isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = weights
            bias = state.pop(f"{_of_convolution(name)}.bias", 0)
            state[f"{name}.weight"], state[f"{name}.bias"] = gamma, beta
            state[f"{name}.running_mean"] = mean - bias
            state[f"{name}.running_var"] = variance + (layer.epsilon - BATCH_NORM_EPSILON)
        elif name and weights:
            state[f"{name}.weight"] = to_torch(weights[0])
            if len(weights) > 1:
                state[f"{name}.bias"] = weights[1]
    return state


def _torchvision_name(name):
    """`conv3_block2_1_bn` is `layer2.1.bn1`; None for a layer without weights."""
    if match := re.fullmatch(r"conv(\d)_block(\d+)_([0-3])_(conv|bn)", name):
        block = f"layer{int(match[1]) - 1}.{int(match[2]) - 1}"
        if match[3] == "0":
            return f"{block}.downsample.{0 if match[4] == 'conv' else 1}"
        return f"{block}.{match[4]}{match[3]}"
    return {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc"}.get(name)


def _of_convolution(name):
    """The convolution before a batch normalization."""
    return re.sub(r"bn(\d)$", r"conv\1", name).replace("downsample.1", "downsample.0")
