"""The contestants of inference.py and training.py: one network in several libraries.

    python benchmarks/contestants.py CONTESTANT MODEL TASK BATCH SIZE THREADS

CONTESTANT is a name in the table below, or the path of an exported network. `contest.py` starts one
process for each contestant, and communicates by lines of JSON: the process reports the time of
building and of the first step, then for each line `round` the seconds of every step, and at the
end of its input its memory.
"""

import importlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 1000
ROUND_SECONDS = 2.0
MINIMUM_STEPS = 3
MATMUL_SIZE = 4096


def images(batch, size):
    """Returns values like those of normalised images, (batch, size, size, 3), and labels."""
    values = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
    return values, np.arange(batch) % CLASSES


def keras_step(make_model, task, batch, size, threads):
    """Returns a function that calls a compiled Keras model, as `fit` and `predict` do."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = make_model()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = images(batch, size)
    if task == "inference":
        return lambda: model.predict_on_batch(x)
    return lambda: model.train_on_batch(x, y)


def keras_resnet(name, task, *sizes):
    """This package."""

    def make():
        import keras_resnet

        return keras_resnet.create(name, classifier_activation=None)

    return keras_step(make, task, *sizes)


def keras_resnet_bfloat16(*arguments):
    """This package, computing in bfloat16 with float32 weights."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    return keras_resnet(*arguments)


def keras_applications(name, task, *sizes):
    """Keras' own ResNet-50, of version 1 with biases."""

    def make():
        import keras

        builder = {"resnet50": keras.applications.ResNet50}[name]
        return builder(weights=None, classifier_activation=None)

    return keras_step(make, task, *sizes)


def stock_keras(name, task, *sizes):
    """Our network in Keras' own layers."""
    return keras_step(lambda: stock_network(name), task, *sizes)


def stock_network(name):
    """Builds the same network with stock Keras layers, in the straightforward way."""
    import keras
    from keras import layers

    from keras_resnet.configs import CONFIGS

    config = CONFIGS[name]

    def convolve(x, filters, size, strides=1, groups=1):
        if strides > 1 and size > 1:
            x = layers.ZeroPadding2D(size // 2)(x)
        padding = "valid" if strides > 1 else "same"
        x = layers.Conv2D(filters, size, strides, padding, groups=groups, use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def main_path(x, stage, strides):
        width, filters = config.width(stage), config.filters(stage)
        if config.block == "basic":
            x = layers.ReLU()(convolve(x, filters, 3, strides))
            return convolve(x, filters, 3)
        x = layers.ReLU()(convolve(x, width, 1))
        x = layers.ReLU()(convolve(x, width, 3, strides, config.groups))
        return convolve(x, filters, 1)

    inputs = keras.Input((None, None, 3))
    x = layers.ReLU()(convolve(inputs, 64, 7, 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, depth in enumerate(config.depths):
        for index in range(depth):
            strides = 2 if stage and not index else 1
            shortcut = x
            if strides > 1 or x.shape[-1] != config.filters(stage):
                shortcut = convolve(x, config.filters(stage), 1, strides)
            x = layers.ReLU()(layers.Add()([main_path(x, stage, strides), shortcut]))
    x = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def torchvision(name, task, batch, size, threads, memory_format=None, bfloat16=False):
    """The network of torchvision, or timm's, in PyTorch's default memory format (NCHW)."""
    import torch
    import torchvision

    memory_format = memory_format or torch.contiguous_format
    torch.set_num_threads(threads)
    if name in torchvision.models.list_models():
        model = torchvision.models.get_model(name)
    else:
        import timm

        model = timm.create_model(name)
    model = model.to(memory_format=memory_format)
    x, y = images(batch, size)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    y = torch.from_numpy(y)
    if task == "inference":
        model.eval()

        def step():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                return model(x).float().numpy()

        return step
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torchvision_channels_last(*arguments):
    """The network of torchvision, in the memory format that is faster on most CPUs."""
    import torch

    return torchvision(*arguments, memory_format=torch.channels_last)


def torchvision_bfloat16(*arguments):
    """The same with PyTorch's autocast."""
    import torch

    return torchvision(*arguments, memory_format=torch.channels_last, bfloat16=True)


def onnxruntime(name, task, batch, size, threads):
    """Our network's exported file; for inference only."""
    import onnxruntime

    import keras_resnet

    model = keras_resnet.create(name, classifier_activation=None)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = keras_resnet.export.onnx(model, Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(path, options)
    feed = {session.get_inputs()[0].name: images(batch, size)[0]}
    return lambda: session.run(None, feed)


def exported(path, batch, size):
    """An exported file, in its own runtime."""
    from keras_resnet.export import run_exported

    answer = run_exported.load(path)
    x, _ = images(batch, size)
    return lambda: answer(x)


def matmul(name, task, batch, size, threads):
    """A large matrix product, as the peak speed of the machine."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    matrix = tf.random.normal((MATMUL_SIZE, MATMUL_SIZE))
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    return lambda: multiply().numpy()


CONTESTANTS = {
    "keras_resnet": keras_resnet,
    "keras_resnet without oneDNN": keras_resnet,  # contest.py sets the variable
    "keras_resnet bfloat16": keras_resnet_bfloat16,
    "torchvision channels_last": torchvision_channels_last,
    "torchvision": torchvision,
    "torchvision bfloat16": torchvision_bfloat16,
    "keras.applications": keras_applications,
    "stock Keras layers": stock_keras,
    "onnxruntime": onnxruntime,
    "matmul": matmul,
}


def memory(kind):
    """Returns the memory in MiB, from /proc."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) / 1024


def main(contestant, name, task, *sizes):
    """Builds the network, runs two steps, then responds to the lines of its input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects the output of libraries

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    # Imported before the clock starts.
    for library in ["torch", "torchvision"] if "torch" in contestant else ["keras", "tensorflow"]:
        importlib.import_module(library)
    start = time.perf_counter()
    batch, size, threads = map(int, sizes)
    if contestant in CONTESTANTS:
        step = CONTESTANTS[contestant](name, task, batch, size, threads)
    else:
        step = exported(contestant, batch, size)
    built = memory("VmRSS")
    step()
    answer({"first_step_seconds": time.perf_counter() - start})
    step()
    for _ in sys.stdin:
        seconds = []
        step()  # the first ones filled caches
        while len(seconds) < MINIMUM_STEPS or sum(seconds) < ROUND_SECONDS:
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        answer(seconds)
    answer({"process_mib": memory("VmHWM"), "step_mib": memory("VmHWM") - built})


if __name__ == "__main__":
    main(*sys.argv[1:])
