"""Folds batch normalization into the preceding convolutions, for inference."""

import itertools

import keras
import numpy as np

from keras_resnet.blocks import ResidualBlock
from keras_resnet.layers import BatchNormalization, Conv2D

NETWORKS = (keras.Sequential, keras.Function)  # a functional model is a keras.Function


def fold(model: keras.Model, *, dtype: str | None = None) -> keras.Model:
    """Copies a network, with batch normalization folded into the convolutions before it.

    In inference, batch normalization multiplies each channel by `gamma / sqrt(variance + epsilon)`
    and adds a constant, which the convolution's kernel and a bias can do as well. Batch
    normalization that does not follow a convolution is kept. The copy is for inference only.

    Args:
        model: A functional or sequential model; nested models are folded too.
        dtype: Dtype policy of the copy's layers, "float32" to undo mixed precision. None to keep
            their own.

    Returns:
        A new model whose layers have the same names.

    Raises:
        ValueError: if the model is neither functional nor sequential.

    Example:
    >>> folded = keras_resnet.export.fold(keras_resnet.ResNet18(classes=5))
    >>> folded.get_layer("conv1").use_bias
    True
    """
    if not isinstance(model, NETWORKS):
        raise ValueError(
            "Folding batch normalization needs a model that was built with Keras' functional or "
            f"sequential API. Received: model={model.name!r} of type {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built: add an Input, or call it on data first."
        )
    model = _as_functional(model)
    pairs = dict(_pairs(model))
    gone = {normalization.name for normalization in pairs.values()}

    def copy(layer):
        return _copied(layer, folds=layer in pairs, dtype=dtype)

    def call(layer, *args, **kwargs):
        if layer.name in gone:
            return args[0] if args else kwargs["inputs"]
        return layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for new in folded.layers:
        if not isinstance(new, keras.layers.InputLayer):
            old = model.get_layer(new.name)
            _copy_weights(old, new, pairs.get(old))
    return folded


def _as_functional(model):
    """Returns a sequential model as a functional one; neither is compiled."""
    sequential = isinstance(model, keras.Sequential)
    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    return keras.Model(*ends, name=model.name)


def _copied(layer, *, folds, dtype):
    """Copies a layer for the folded network; only those of nested networks have their weights."""
    if isinstance(layer, NETWORKS):
        return fold(layer, dtype=dtype)
    config = layer.get_config()
    if dtype and isinstance(layer, keras.layers.Layer):
        config["dtype"] = dtype
    if isinstance(layer, ResidualBlock):
        config["folded"] = True
        # Most batch normalization is removed.
        gone = {after for _, after in _pairs_in(layer)}
        config["parts"] = {
            part.name: {key: value for key, value in changes.items() if key != "dtype" or not dtype}
            for part in (*layer.main, *layer.shortcut)
            if part not in gone and (changes := config.get("parts", {}).get(part.name))
        }
    elif folds:
        config["use_bias"] = True
    return type(layer).from_config(config)


def _copy_weights(old, new, normalization):
    """Copies a layer's weights; a convolution's are folded with its batch normalization."""
    if isinstance(old, ResidualBlock) and not old.folded:
        followed = dict(_pairs_in(old))
        for old_path, new_path in ((old.main, new.main), (old.shortcut, new.shortcut)):
            for layer, copy in zip(old_path, new_path, strict=True):
                if layer in followed:
                    copy.set_weights(_folded(layer, followed[layer]))
                elif copy.weights:
                    copy.set_weights(layer.get_weights())
    elif normalization is not None:
        new.set_weights(_folded(old, normalization))
    elif not isinstance(old, NETWORKS):
        new.set_weights(old.get_weights())


def _pairs_in(block):
    """Yields (convolution, following batch normalization) in a block."""
    for path in (block.main, block.shortcut):
        for layer, after in itertools.pairwise(path):
            if isinstance(layer, Conv2D) and isinstance(after, BatchNormalization):
                yield layer, after


def _pairs(model):
    """Yields (convolution, batch normalization) if the second is the only user of the first.

    Uses Keras' private `_inbound_nodes`, as there is no public way to find a tensor's users.
    """
    users = {id(tensor): [model] for tensor in model.outputs}
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                users.setdefault(id(tensor), []).append(operation)
    for layer in model.layers:
        if _convolves(layer) and len(layer._inbound_nodes) == 1:
            user, *others = users[id(layer.output)]
            if not others and _normalises(user, layer) and len(user._inbound_nodes) == 1:
                yield layer, user


# Not subclasses, which may compute something else.
def _convolves(layer):
    kinds = (keras.layers.Conv2D, Conv2D)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _normalises(layer, convolution):
    """Whether a layer is a batch normalization over a convolution's channels."""
    if type(layer) not in (keras.layers.BatchNormalization, BatchNormalization):
        return False
    return layer.axis % 4 == (1 if convolution.data_format == "channels_first" else 3)


def _folded(convolution, normalization):
    """Returns the kernel and the bias of the folded convolution, computed in float64."""
    gamma, beta, mean, variance = (
        default if value is None else np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        for value, default in (
            (normalization.gamma, 1.0),
            (normalization.beta, 0.0),
            (normalization.moving_mean, 0.0),
            (normalization.moving_variance, 1.0),
        )
    )
    scale = gamma / np.sqrt(variance + normalization.epsilon)
    kernel = np.asarray(keras.ops.convert_to_numpy(convolution.kernel), np.float64) * scale
    bias = 0.0 if convolution.bias is None else keras.ops.convert_to_numpy(convolution.bias)
    return [kernel, beta + (bias - mean) * scale]
