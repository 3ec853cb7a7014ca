"""The devices and processes that a training runs on."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_resnet.files import in_words
from keras_resnet.training.errors import TrainingError, WritingError
from keras_resnet.training.recipe import Recipe

logger = logging.getLogger("keras_resnet")

HEARTBEAT = 20  # seconds without a signal after which a process is considered dead
WAITING = 300  # seconds to wait for other processes at the start
PARTING = 40  # and at the end
# Number of steps from which XLA saves time on a GPU. On an H100, it saved 85 ms per step of
# ResNet-50 with batch size 256, and 36 of ResNet-34 with 16; compiling took 50 to 70 and 35 s.
COMPILED_FROM = 1000


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The devices and processes that a network is trained on.

    Args:
        devices: Number of GPUs of this machine that share each batch, with
            `tf.distribute.MirroredStrategy`; without a GPU, number of logical CPU devices, for
            testing.
        coordinator: Host and port of the first of several processes: "10.0.0.1:1234". Each process
            uses all devices of its machine. Only with JAX (KERAS_BACKEND=jax), with
            `keras.distribution.DataParallel`.
        processes: Number of processes.
        process_id: Index of this process, 0 to `processes` - 1. The first one writes the run
            folder, which should be on a disk that all of them share.
    """

    devices: int = 1
    coordinator: str | None = None
    processes: int = 1
    process_id: int = 0

    def __post_init__(self):
        """Validates the fields."""
        if self.devices < 1 or not 0 <= self.process_id < self.processes:
            raise ValueError(
                "devices should be 1 or more, and process_id 0 to processes - 1. Received: "
                f"devices={self.devices}, process_id={self.process_id}, processes={self.processes}"
            )
        if (self.processes > 1) != (self.coordinator is not None):
            raise ValueError(
                "coordinator should be HOST:PORT of the first process if processes is 2 or more, "
                f"else None. Received: coordinator={self.coordinator!r}, "
                f"processes={self.processes}"
            )
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise ValueError(
                f"coordinator should be HOST:PORT. Received: coordinator={self.coordinator!r}"
            )
        backend = keras.backend.backend()
        if self.processes > 1 and backend != "jax":
            raise ValueError(
                "Training in several processes needs JAX: set the environment variable "
                f"KERAS_BACKEND=jax. The backend is {backend!r}."
            )
        if self.devices > 1 and backend != "tensorflow":
            raise ValueError(
                "devices needs TensorFlow. With JAX, start one process per device (processes). "
                f"The backend is {backend!r}. Received: devices={self.devices}"
            )

    @property
    def writes(self):
        """Whether this process writes the run folder."""
        return self.process_id == 0

    @property
    def worker(self):
        """(index, number) of the part of the images that this process reads."""
        return self.process_id, self.processes

    @property
    def replicas(self):
        """Number of replicas that share a batch, as known before the processes connect."""
        return self.processes * self.devices

    def check(self, recipe: Recipe) -> None:
        """Raises an error for a recipe that is not supported on these devices.

        Raises:
            ValueError: names the arguments that are not supported together.
        """
        if self.devices > 1 and recipe.accumulation_steps > 1:
            raise ValueError(
                "Gradient accumulation is not supported with several devices. Received: "
                f"devices={self.devices}, accumulation_steps={recipe.accumulation_steps}"
            )
        if self.devices > 1 and recipe.clip_norm:
            raise ValueError(
                "clip_norm is not supported with several devices: Keras clips the gradient of "
                f"each device separately. Received: devices={self.devices}, "
                f"clip_norm={recipe.clip_norm}"
            )
        if self.devices > 1 and recipe.teacher:
            raise ValueError(
                "A teacher is not supported with several devices: Keras adds its loss more than "
                "once. Train on one device, or with JAX in several processes. Received: "
                f"devices={self.devices}, teacher={recipe.teacher!r}"
            )
        if self.processes > 1 and recipe.head_epochs:
            raise ValueError(
                "head_epochs is not supported with several processes: train the head in one "
                "process first, which takes seconds, and pass its best.keras as weights. "
                f"Received: head_epochs={recipe.head_epochs}, processes={self.processes}"
            )
        if recipe.batch_size % self.replicas:
            raise ValueError(
                "batch_size is over all devices and should be a multiple of their number. "
                f"Received: batch_size={recipe.batch_size}, devices={self.devices}, "
                f"processes={self.processes}"
            )

    def resolved(self, recipe: Recipe, steps: int) -> Recipe:
        """Returns a recipe with the fields that depend on the machine filled in.

        Args:
            recipe: A `Recipe`.
            steps: Number of planned steps.
        """
        changes: dict[str, Any] = {}
        if recipe.precision is None:
            bfloat16 = (_compute_capability() or 0) >= 8
            changes["precision"] = "mixed_bfloat16" if bfloat16 else "float32"
        if recipe.jit_compile is None:
            pays = _compute_capability() is not None and steps >= COMPILED_FROM
            # JAX would run each operation separately without it.
            changes["jit_compile"] = pays or keras.backend.backend() == "jax"
        return dataclasses.replace(recipe, **changes)

    def start(self) -> Callable[[], AbstractContextManager]:
        """Connects the processes; returns a function that makes the context for training."""
        if self.processes > 1:
            return self._meet()
        if self.devices > 1:
            return tf.distribute.MirroredStrategy(_devices(self.devices)).scope
        return contextlib.nullcontext

    def _meet(self):
        import jax

        if self.writes:
            logger.info("Waiting for %d processes at %s.", self.processes, self.coordinator)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # The service intercepts SIGTERM, so that the process could not be ended.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                self.coordinator,
                self.processes,
                self.process_id,
                cluster_detection_method="deactivate",
                initialization_timeout=WAITING,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=PARTING,
            )
        except jax.errors.JaxRuntimeError as error:
            raise TrainingError(
                f"The {self.processes} processes did not meet at {self.coordinator} within "
                f"{WAITING} s. Check that each was started, with a different process_id."
            ) from error
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope

    def part(self) -> None:
        """Disconnects from the other processes at the end of training."""
        if self.processes > 1:
            import jax

            jax.distributed.shutdown()

    def total(self, values: npt.ArrayLike) -> np.ndarray:
        """Sums numbers over all processes."""
        if self.processes == 1:
            return np.asarray(values)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.asarray(values)).sum(axis=0)

    @contextlib.contextmanager
    def explained(self, folder: Path) -> Iterator[None]:
        """Converts an error to one that explains what it means for the training."""
        try:
            yield
        except WritingError:
            raise
        except (OSError, tf.errors.ResourceExhaustedError) as error:
            raise WritingError(
                f"The training in {folder} stopped: {in_words(error)}. Its last checkpoint, if "
                "there is one, is intact: fix the problem and run the same command again."
            ) from error
        except (RuntimeError, ValueError) as error:
            lost = type(error).__name__ == "JaxRuntimeError" or "Gloo" in str(error)
            if self.processes == 1 or not lost:
                raise
            said = str(error).rpartition("Error dispatching computation: ")[2]
            raise TrainingError(
                f"Another of the {self.processes} processes has ended or cannot be reached. Run "
                "the same command again on all of them to resume from the last checkpoint. JAX "
                f"said: {said}"
            ) from error

    def __str__(self):
        """Describes the devices, for messages."""
        if self.processes > 1:
            return f"process {self.process_id} of {self.processes} on JAX"
        gpus = len(tf.config.list_physical_devices("GPU"))
        if gpus:
            return f"{self.devices} of {gpus} GPU(s)"
        return "the CPU" if self.devices == 1 else f"the CPU as {self.devices} devices"


def _compute_capability():
    """Returns the compute capability of the first GPU, 8.0 for example; None without a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        capability = getattr(jax.local_devices()[0], "compute_capability", None)
        return None if capability is None else float(capability)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    major, minor = details.get("compute_capability", (0, 0))
    return major + minor / 10


def _devices(count):
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        if len(gpus) < count:
            raise TrainingError(f"This machine has {len(gpus)} GPUs. Received: devices={count}")
        return [gpu.name for gpu in gpus[:count]]
    with contextlib.suppress(
        RuntimeError
    ):  # TensorFlow is already initialized, perhaps with this number
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < count:
        raise TrainingError(
            f"This machine has no GPU, and TensorFlow was already initialized with {len(cpus)} "
            f"CPU device(s). Received: devices={count}"
        )
    logger.info("There is no GPU: the CPU is split into %d devices, for testing.", count)
    return [cpu.name for cpu in cpus[:count]]
