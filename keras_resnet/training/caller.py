"""The caller's program, which a training leaves as it found it."""

import contextlib
import random
import sys
from typing import Any, cast

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.framework import config

# Keras' seed, and the generator of what is drawn without one.
KERAS = ("global_random_seed", "global_seed_generator")
# What processes that meet set in JAX.
JAX = ("jax_cpu_collectives_implementation", "jax_enable_preemption_service")


@contextlib.contextmanager
def caller_restored():
    """Puts back, at the end, what is global: seeds, determinism and JAX's configuration.

    Neither Keras nor TensorFlow has public functions for it. Not put back are TensorFlow's logical
    devices, the places of its operations with a seed of their own in their sequences, and JAX's
    connection to other processes, which is closed.
    """
    eager, jax = context.context(), cast(Any, sys.modules.get("jax"))
    python, numpy = random.getstate(), np.random.get_state()
    seed, drawn = eager._seed, getattr(eager, "_rng", None)
    state = drawn and drawn.getstate()
    deterministic = config.is_op_determinism_enabled()
    keras = {name: global_state.get_global_attribute(name) for name in KERAS}
    settings = {name: getattr(jax.config, name) for name in JAX if jax}
    try:
        yield
    finally:
        for name, value in settings.items():
            jax.config.update(name, value)
        for name, value in keras.items():
            global_state.set_global_attribute(name, value)
        if not deterministic:
            config.disable_op_determinism()
        tf.random.set_seed(seed)
        if state:
            eager._rng.setstate(state)
        np.random.set_state(numpy)
        random.setstate(python)
