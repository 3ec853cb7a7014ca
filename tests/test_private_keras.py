"""Private functions of Keras, TensorFlow and TFDS that the package uses exist.

Run with the lowest and the newest supported versions: `pytest -m private`.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state
from small_networks import small
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import config

pytestmark = pytest.mark.private


def test_flatten_layers_has_what_is_directly_inside_in_order():
    """Used by `builder.all_layers`, and by exports to find kinds of layers."""
    block = small("basic").get_layer("layer2.0")
    inside = block._flatten_layers(include_self=False, recursive=False)
    assert inside == [*block.main, *block.shortcut]
    assert set(block._flatten_layers()) == {block, *inside}


def test_rematerialized_call_has_the_expected_signature():
    """Overridden by `layers.Recomputed`: Keras passes the call, and calls the result."""
    parameters = inspect.signature(keras.layers.Layer.rematerialized_call).parameters
    assert list(parameters) == ["self", "layer_call", "args", "kwargs"]


def test_inbound_nodes_have_input_tensors():
    """Used by `export.fold` to find the layers that take a convolution's output."""
    x = keras.Input((4, 4, 3))
    first, second = keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()
    model = keras.Model(x, second(first(x)))
    (node,) = second._inbound_nodes
    assert [id(tensor) for tensor in node.input_tensors] == [id(first.output)]
    assert list(model.operations)[1:] == [first, second]


def test_an_optimizer_has_the_index_and_average_of_a_variable():
    """Used by `training.optimizers` (indices) and `training.validation` (moving averages)."""
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    variables = [keras.Variable(np.zeros(2)), keras.Variable(np.ones(3))]
    optimizer.build(variables)
    assert optimizer._trainable_variables == variables
    assert [optimizer._get_variable_index(variable) for variable in variables] == [0, 1]
    optimizer.apply([tf.ones(2), tf.ones(3)])
    averages = optimizer._model_variables_moving_average
    assert [average.shape for average in averages] == [(2,), (3,)]
    np.testing.assert_array_equal(averages[1], variables[1])


def test_seeds_and_determinism_can_be_read():
    """Used by `training` to restore them."""
    keras.utils.set_random_seed(7)
    assert global_state.get_global_attribute("global_random_seed") == 7
    keras.random.normal((1,))
    assert global_state.get_global_attribute("global_seed_generator") is not None
    tf.random.set_seed(8)
    tf.random.normal((1,))
    assert context.context()._seed == 8
    context.context()._rng.setstate(context.context()._rng.getstate())
    assert config.is_op_determinism_enabled() is False
    assert callable(config.disable_op_determinism)


def test_a_saved_graph_can_be_read(tmp_path):
    """Used by `export.saved_model` to check what it wrote."""
    module = tf.Module()
    module.f = tf.function(lambda x: tf.nn.relu(x), input_signature=[tf.TensorSpec((2,))])
    tf.saved_model.save(module, tmp_path, module.f)
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    (meta,) = graph.meta_graphs
    operations = {
        node.op for function in meta.graph_def.library.function for node in function.node_def
    }
    assert "Relu" in operations
    assert meta.signature_def["serving_default"].inputs


def test_an_unknown_dataset_has_an_error_of_its_own(tmp_path):
    import tensorflow_datasets as tfds

    with pytest.raises(tfds.core.registered.DatasetNotFoundError):
        tfds.builder("no_such_dataset", data_dir=tmp_path)


TORCH = """
import keras
import keras_resnet

def names(*layers):
    x = y = keras.Input((8, 8, 3))
    for layer in layers:
        y = layer(y)
    model = keras.Model(x, y)
    return {name.removeprefix("_torch_params.") for name, _ in model.named_parameters()}, model

found, model = names(keras.layers.Dense(2, name="plain"))
assert found == {"plain/bias", "plain/kernel"}, found
# Names that differ only by a dot or an underscore have separate parameters.
found, model = names(*(keras.layers.Conv2D(3, 1, name=name) for name in ("a.b", "a_b")))
expected = {"a//b/kernel", "a//b/bias", "a_b/kernel", "a_b/bias"}
assert found == expected, found
assert sum(p.numel() for p in model.parameters()) == model.count_params()
assert keras.layers.Layer._track_variables.__module__ == "keras_resnet.layers"
"""


@pytest.mark.backend
def test_torch_registers_variables_by_paths_without_dots(run_python):
    pytest.importorskip("torch")
    done = run_python("-c", TORCH, variables={"KERAS_BACKEND": "torch"})
    assert done.returncode == 0, done.stderr
