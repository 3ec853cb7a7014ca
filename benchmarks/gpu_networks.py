"""The networks of gpu.py's contestants, each with a batch on the device of its library."""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from contestants import CLASSES, images

POLICIES = {"bf16": "mixed_bfloat16", "tf32": "float32"}


class Job(NamedTuple):
    """What a contestant measures, and how it is identified."""

    contestant: str
    model: str  # "" for none
    precision: str  # "" for none
    batch: int
    size: int  # height and width in pixels
    task: str


class Network(NamedTuple):
    """A network on a device, with its batch."""

    step: Callable  # from a task to a function that takes one step
    peak: Callable  # peak memory in bytes since the last call (JAX: since the start), None on a CPU
    gpu: str | None


def keras_model(job, library, layout="channels_last"):
    """Returns a compiled model, and its batch as arrays."""
    import keras

    keras.config.set_dtype_policy(POLICIES[job.precision])
    keras.config.set_image_data_format(layout)
    x, y = images(job.batch, job.size)
    if layout == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    options = {"weights": None, "input_shape": x.shape[1:], "classifier_activation": None}
    if library == "keras.applications":
        model = {"resnet50": keras.applications.ResNet50}[job.model](**options)
    else:
        import keras_resnet

        model = keras_resnet.create(job.model, **options)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model, x, y


def tensorflow_network(job, library="keras_resnet", layout="channels_last", jit_compile=True):
    """Uses TensorFlow, with the same functions as `fit` and `predict`."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    model, x, y = keras_model(job, library, layout)
    x, y = tf.constant(x), tf.constant(y)
    train = tf.function(lambda x, y: model.train_step((x, y))["loss"], jit_compile=jit_compile)
    answer = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)

    def peak():
        found = tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None
        if gpus:
            tf.config.experimental.reset_memory_stats("GPU:0")
        return found

    steps = {"training": lambda: train(x, y), "inference": lambda: answer(x)}
    return Network(steps.get, peak, device_name(gpus))


def device_name(gpus):
    """Returns the name of the first GPU in TensorFlow; None if there is none."""
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else None


def jax_network(job):
    """Uses JAX with our network: Keras' stateless training step, with donated variables."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # leaves the memory to JAX
    model, x, y = keras_model(job, "keras_resnet")
    x, y = jax.device_put(x), jax.device_put(y)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in group] for group in groups]
    train = jax.jit(model.train_step, donate_argnums=0)
    answer = jax.jit(lambda trained, others, x: model.stateless_call(trained, others, x)[0])

    def training():
        logs, state[:] = train(tuple(state), (x, y))
        return logs["loss"]

    def peak():
        return (device.memory_stats() or {}).get("peak_bytes_in_use")

    device = jax.local_devices()[0]
    steps = {"training": training, "inference": lambda: answer(state[0], state[1], x)}
    return Network(steps.get, peak, device.device_kind if device.platform == "gpu" else None)


def torch_network(job, compiled=False):
    """Uses torchvision in channels_last; eager or with torch.compile."""
    import torch
    import torchvision

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    layout = {"device": device, "memory_format": torch.channels_last}
    model = torchvision.models.get_model(job.model, num_classes=CLASSES).to(**layout)
    x, y = images(job.batch, job.size)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).to(**layout)
    y = torch.from_numpy(y).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    precision = functools.partial(
        torch.autocast, device, torch.bfloat16, enabled=job.precision == "bf16"
    )

    def answer(x):
        with precision():
            return model(x)

    def loss(x, y):
        with precision():
            return torch.nn.functional.cross_entropy(model(x), y)

    if compiled:
        # On CPUs, the default generates and compiles C++, which takes minutes.
        backend = "inductor" if gpu else "aot_eager"
        answer, loss = (torch.compile(function, backend=backend) for function in (answer, loss))

    def training():
        optimizer.zero_grad()
        found = loss(x, y)
        found.backward()
        optimizer.step()
        return found.detach()

    @torch.no_grad()
    def inference():
        return answer(x)

    def step(task):
        model.train(task == "training")
        return {"training": training, "inference": inference}[task]

    def peak():
        found = torch.cuda.max_memory_allocated() if gpu else None
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        return found

    return Network(step, peak, torch.cuda.get_device_name() if gpu else None)
