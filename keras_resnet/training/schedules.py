"""The learning rate over a training."""

import keras
from keras import ops

from keras_resnet.layers import PACKAGE

START = 0.01  # of the highest learning rate, where a warm-up begins; torchvision's V2 recipe


@keras.saving.register_keras_serializable(PACKAGE)
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, whose learning rate rises linearly at first.

    Args:
        schedule: A schedule, or a number for a constant learning rate.
        steps: How many steps it rises.
    """

    def __init__(self, schedule, steps):
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        """The learning rate at a step."""
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        share = ops.minimum(ops.cast(step, "float32") / self.steps, 1.0)
        return rate * (START + (1 - START) * share)

    def get_config(self):
        """What makes an equal one."""
        schedule = self.schedule
        if callable(schedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(
            **{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])}
        )


def create_schedule(recipe, steps_per_epoch):
    """The learning rate of a recipe: a number, or a schedule over its steps.

    Args:
        recipe: A `Recipe`.
        steps_per_epoch: How many steps an epoch has.
    """
    schedules = keras.optimizers.schedules
    highest = float(recipe.learning_rate)
    if recipe.reference_batch_size:
        batch = recipe.batch_size * recipe.accumulation_steps
        highest *= batch / recipe.reference_batch_size
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
        # The step with a milestone's number is the first one at the lower rate.
        schedule = schedules.PiecewiseConstantDecay(
            [epoch * steps_per_epoch - 1 for epoch in recipe.milestones],
            [highest / 10**number for number in range(len(recipe.milestones) + 1)],
        )
    return WarmUp(schedule, warmup) if warmup else schedule
