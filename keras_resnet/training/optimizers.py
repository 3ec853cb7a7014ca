"""Optimizers with PyTorch's update rules and settings per layer, and schedules."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_resnet.configs import CONFIGS
from keras_resnet.layers import PACKAGE

LearningRate: TypeAlias = float | Callable[[Any], Any]  # or a Keras schedule

START = 0.01  # of the peak learning rate, at the start of a warm-up; as in torchvision's V2 recipe


class _PerVariable(keras.optimizers.Optimizer):
    """Mixin with weight decay and learning rates per variable; the first base class of optimizers.

    Args:
        learning_rate: Float or schedule.
        decay: Weight decay.
        decoupled: False to add the decay to the gradient, before momentum, as torch.optim.SGD and
            Adam do. True to subtract it from the variable, as torch.optim.AdamW does.
        decay_all: Whether to apply it to all variables, not only to kernels.
        multipliers: {name of a layer, block or stage: factor of its learning rate}; the longest
            matching name counts.
        **arguments: Arguments of the Keras optimizer.

    Raises:
        ValueError: if Keras' own `weight_decay` is given.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        *,
        decay: float = 0.0,
        decoupled: bool = False,
        decay_all: bool = False,
        multipliers: Mapping[str, float] | None = None,
        **arguments: Any,
    ):
        if arguments.get("weight_decay") is not None:
            raise ValueError(
                "Use decay instead of weight_decay; decoupled=True does what Keras' weight_decay "
                f"does. Received: weight_decay={arguments['weight_decay']}"
            )
        super().__init__(learning_rate, **arguments)
        self.decay = decay
        self.decoupled = decoupled
        self.decay_all = decay_all
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = [_factor(self.multipliers, variable.path) for variable in variables]
        self._decays = [
            self.decay
            if self._use_weight_decay(variable)
            and (self.decay_all or variable.path.endswith("/kernel"))
            else 0.0
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        gradient = ops.cast(gradient, variable.dtype)
        self._decayed_step(gradient, variable, learning_rate, self._decays[index])

    def _decayed_step(self, gradient, variable, learning_rate, decay):
        """Updates a variable with its learning rate and decay."""
        if decay and self.decoupled:
            self.assign_sub(variable, variable * (learning_rate * decay))
        elif decay:
            gradient = gradient + variable * decay
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        names = ("decay", "decoupled", "decay_all", "multipliers")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _factor(multipliers, path):
    """Returns the learning rate factor of a variable, by the longest matching name."""
    fits = [name for name in multipliers if path.startswith((f"{name}/", f"{name}."))]
    return multipliers[max(fits, key=len)] if fits else 1.0


class _TorchSGD(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, velocity * self.momentum + gradient)
            gradient = gradient + velocity * self.momentum if self.nesterov else velocity
        self.assign_sub(variable, gradient * learning_rate)


@keras.saving.register_keras_serializable(PACKAGE)
class SGD(_PerVariable, _TorchSGD):
    """A `keras.optimizers.SGD` with the momentum update of torch.optim.SGD.

    The velocity sums gradients. In Keras' own, it sums gradients times the learning rate, so that
    after a change of the learning rate, earlier gradients are still scaled by the old one.

    Args:
        learning_rate: Float or schedule.
        decay: Weight decay, for kernels.
        decoupled: False to add the weight decay to the gradient, as in torch.optim. True to
            subtract it from the weights, times the learning rate
            (https://arxiv.org/abs/1711.05101).
        decay_all: Whether to apply weight decay to all weights, not only to kernels.
        multipliers: Factors of the learning rate by layer, block or stage: {"layer3": 0.3}.
        **arguments: Arguments of `keras.optimizers.SGD`: momentum, nesterov, ....
    """


@keras.saving.register_keras_serializable(PACKAGE)
class Adam(_PerVariable, keras.optimizers.Adam):
    """A `keras.optimizers.Adam` with torch.optim.Adam's epsilon, 1e-8.

    Args:
        learning_rate: Float or schedule.
        epsilon: Added to the square root of the second moment.
        **arguments: decay, decoupled, decay_all and multipliers, as for `SGD`; and arguments of
            `keras.optimizers.Adam`: beta_1, beta_2, ....
    """

    def __init__(
        self, learning_rate: LearningRate = 0.001, *, epsilon: float = 1e-8, **arguments: Any
    ):
        super().__init__(learning_rate, epsilon=epsilon, **arguments)


@keras.saving.register_keras_serializable(PACKAGE)
class Lamb(_PerVariable, keras.optimizers.Lamb):
    """LAMB (https://arxiv.org/abs/1904.00962), with the update of timm.optim.Lamb.

    Weight decay is added to the update before the trust ratio is computed; `keras.optimizers.Lamb`
    subtracts it from the weights beforehand. Weights without decay are updated as by Adam, without
    a trust ratio.

    Args:
        learning_rate: Float or schedule.
        epsilon: Added to the square root of the second moment.
        **arguments: decay, decoupled, decay_all and multipliers, as for `SGD`; and arguments of
            `keras.optimizers.Lamb`: beta_1, beta_2, ....
    """

    def __init__(
        self, learning_rate: LearningRate = 0.001, *, epsilon: float = 1e-6, **arguments: Any
    ):
        super().__init__(learning_rate, epsilon=epsilon, **arguments)

    def _decayed_step(self, gradient, variable, learning_rate, decay):
        """Updates a variable, with the decay in the trust ratio."""
        index = self._get_variable_index(variable)
        step = ops.cast(self.iterations + 1, variable.dtype)
        moments = []
        for moment, value, beta in (
            (self._momentums[index], gradient, self.beta_1),
            (self._velocities[index], ops.square(gradient), self.beta_2),
        ):
            self.assign(moment, moment + (value - moment) * (1 - beta))
            # 1 - beta ** step, but without the cancellation in float32 in the first steps.
            moments.append(moment / -ops.expm1(step * math.log(beta)))
        update = moments[0] / (ops.sqrt(moments[1]) + self.epsilon)
        if decay and self.decoupled:
            self.assign_sub(variable, variable * (learning_rate * decay))
        elif decay:
            update = update + variable * decay
        if decay:
            norm, change = (ops.sqrt(ops.sum(ops.square(part))) for part in (variable, update))
            both = ops.logical_and(norm > 0, change > 0)
            update = update * ops.where(both, norm / ops.where(both, change, 1.0), 1.0)
        self.assign_sub(variable, update * learning_rate)


def layer_decays(config, factor) -> dict[str, float]:
    """Returns layer-wise factors of the learning rate, which decay towards the input.

    Args:
        config: A `ResNetConfig`.
        factor: Factor from each block to the one before it; that of the last block.

    Returns:
        Factors by name of layer or block; that of `fc` is 1.

    Source: timm.optim.param_groups_layer_decay (https://arxiv.org/abs/2106.08254).
    """
    blocks = [
        f"layer{stage}.{index}"
        for stage, depth in enumerate(config.depths, 1)
        for index in range(depth)
    ]
    steps = {name: len(blocks) - number for number, name in enumerate(blocks)}
    steps |= {"norm": 1, **dict.fromkeys(("conv1", "bn1", "maxpool"), len(blocks) + 1)}
    return {name: factor**number for name, number in steps.items()}


def create_optimizer(recipe, learning_rate):
    """Makes the optimizer of a recipe.

    Args:
        recipe: A `Recipe`.
        learning_rate: Float or schedule.
    """
    arguments = {
        "decay": recipe.weight_decay,
        "decoupled": recipe.optimizer.endswith("w"),
        "decay_all": recipe.decay_all,
        "multipliers": (
            recipe.learning_rate_multipliers
            if recipe.layer_decay is None
            else layer_decays(CONFIGS[recipe.model], recipe.layer_decay)
        ),
        "global_clipnorm": recipe.clip_norm,
        "use_ema": recipe.ema_momentum is not None,
        # Keras averages after each batch, even if several batches make one update.
        "ema_momentum": (recipe.ema_momentum or 0.0) ** (1 / recipe.accumulation_steps),
        "gradient_accumulation_steps": (
            recipe.accumulation_steps if recipe.accumulation_steps > 1 else None
        ),
    }
    if recipe.optimizer.startswith("sgd"):
        arguments |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        optimizer = SGD(learning_rate, **arguments)
    else:
        optimizer = (Lamb if recipe.optimizer == "lamb" else Adam)(learning_rate, **arguments)
    # At the end of `fit`, Keras replaces the weights by the averages. But an interrupted epoch is
    # a `fit` of its own, after which training continues with the weights.
    optimizer.finalize_variable_values = lambda variables: None
    if recipe.precision == "mixed_float16":
        # `compile` only checks the policy of the model, not of its layers.
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


@keras.saving.register_keras_serializable(PACKAGE)
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with a linear warm-up before another schedule.

    Args:
        schedule: The other schedule, or a number for a constant learning rate.
        steps: Number of warm-up steps.
    """

    def __init__(self, schedule: LearningRate, steps: int):
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        """Returns the learning rate at a step."""
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        share = ops.minimum(ops.cast(step, "float32") / self.steps, 1.0)
        return rate * (START + (1 - START) * share)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, for `from_config`."""
        schedule = self.schedule
        if callable(schedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        """Creates the schedule from the result of `get_config`."""
        return cls(
            **{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])}
        )


@keras.saving.register_keras_serializable(PACKAGE)
class Until(WarmUp):
    """A schedule up to a step, followed by a constant learning rate.

    Args:
        schedule: As for `WarmUp`.
        steps: Number of steps of the schedule.
        rate: Learning rate after them.
    """

    def __init__(self, schedule: LearningRate, steps: int, rate: float):
        super().__init__(schedule, steps)
        self.rate = rate

    def __call__(self, step):
        """The learning rate at a step."""
        before = self.schedule(step) if callable(self.schedule) else self.schedule
        return ops.where(ops.cast(step, "float32") < self.steps, before, self.rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), "rate": self.rate}


def create_schedule(recipe, steps_per_epoch):
    """Makes the learning rate of a recipe: a number, or a schedule.

    Args:
        recipe: A `Recipe`.
        steps_per_epoch: Number of steps per epoch.
    """
    factor = 1.0
    if recipe.reference_batch_size:
        batch = recipe.batch_size * recipe.accumulation_steps
        factor = batch / recipe.reference_batch_size
    schedule = _up_to_the_end(recipe, steps_per_epoch, factor * recipe.learning_rate)
    if recipe.swa_learning_rate is None:
        return schedule
    return Until(schedule, recipe.swa_start * steps_per_epoch, factor * recipe.swa_learning_rate)


def _up_to_the_end(recipe, steps_per_epoch, highest):
    """Makes the schedule without `swa_learning_rate`."""
    schedules = keras.optimizers.schedules
    steps = recipe.epochs * steps_per_epoch
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if recipe.schedule == "cosine":
        if not warmup:
            return schedules.CosineDecay(highest, steps)
        return schedules.CosineDecay(
            START * highest, max(steps - warmup, 1), warmup_target=highest, warmup_steps=warmup
        )
    schedule = highest
    if recipe.schedule == "step":
        # The first step of a milestone's epoch already has the lower rate.
        schedule = schedules.PiecewiseConstantDecay(
            [epoch * steps_per_epoch - 1 for epoch in recipe.milestones],
            [highest / 10**number for number in range(len(recipe.milestones) + 1)],
        )
    return WarmUp(schedule, warmup) if warmup else schedule
