"""Where a training runs: on which devices of this machine."""

import contextlib
import logging

import tensorflow as tf

from keras_resnet.training.errors import TrainingError

logger = logging.getLogger("keras_resnet")


def device_scope(devices):
    """Function to the context in which a network is created and trained.

    Args:
        devices: How many GPUs; where there is none, how many logical CPU devices, which are made
            of this machine's CPU to try it out.

    Raises:
        TrainingError: if there are not so many.
    """
    if devices == 1:
        return contextlib.nullcontext
    return tf.distribute.MirroredStrategy(_devices(devices)).scope


def _devices(count):
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        if len(gpus) < count:
            raise TrainingError(f"This machine has {len(gpus)} GPUs. Received: devices={count}")
        return [gpu.name for gpu in gpus[:count]]
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
    except RuntimeError:  # TensorFlow has started, perhaps with as many
        pass
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < count:
        raise TrainingError(
            f"This machine has no GPU, and TensorFlow started with {len(cpus)} CPU device(s) "
            f"before. Received: devices={count}"
        )
    logger.info("There is no GPU: the CPU is split in %d devices, to try it out.", count)
    return [cpu.name for cpu in cpus[:count]]


def said_device(devices):
    """What a training runs on, in words."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return f"{devices} of {gpus} GPU(s)"
    return "the CPU" if devices == 1 else f"the CPU as {devices} devices"
