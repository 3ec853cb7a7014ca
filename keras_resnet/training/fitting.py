"""From where a training is to its end."""

import contextlib

import keras

from keras_resnet import features
from keras_resnet.training import checkpoint
from keras_resnet.training.checkpoint import Progress
from keras_resnet.training.keeper import Callbacks, Keeper, seeds, training_ends
from keras_resnet.training.phases import Features, Setting, head_phase, network_phase
from keras_resnet.training.progress import ProgressBar
from keras_resnet.training.validation import CROSS_ENTROPY, Averages, SharedValidation, copy_weights


def fit(setting: Setting, progress: Progress, state: dict, scope):
    """Trains from where a training is to its end; keeps `progress` up.

    Args:
        setting: A `Setting`.
        progress: Where the training is.
        state: The arrays of its checkpoint, if it has one.
        scope: Function to the context in which the network trains.
    """
    recipe, model, plain = setting.recipe, setting.model, setting.plain
    if progress.epoch < recipe.head_epochs:
        if state:
            checkpoint.restore(state, {"weights": plain.weights})
        with Features(setting) as cached:
            phase = head_phase(setting, cached)
            _compile(setting, phase)
            _fit_phase(setting, phase, progress, state)
        copy_weights(plain, model)
        state = {}
    elif state:
        checkpoint.restore(state, {"weights": model.weights})
    if not training_ends(progress.history, recipe):
        if recipe.freeze_until:
            features.freeze(model, recipe.freeze_until)
        with scope():
            phase = network_phase(setting)
            _compile(setting, phase)
        # A MirroredStrategy's model trains outside of its scope, where callbacks may use others.
        with scope() if setting.placement.processes > 1 else contextlib.nullcontext():
            _fit_phase(setting, phase, progress, state)


def _compile(setting, phase):
    recipe, model = setting.recipe, phase.model
    model.compile(
        optimizer=phase.optimizer,
        loss=keras.losses.CategoricalCrossentropy(),
        weighted_metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(
                min(5, len(setting.sources[0].class_names)), name="top5"
            ),
            # Keras' mean of the loss counts the rows that fill a batch up.
            keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY),
        ],
        jit_compile=recipe.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def _fit_phase(setting, phase, progress, state):
    recipe, model = setting.recipe, phase.model
    done = phase.steps_done(progress)
    if done:
        groups = {"optimizer": model.optimizer.variables, "seeds": seeds(phase.network)}
        checkpoint.restore(state, groups)
    bar = ProgressBar(phase, recipe, first_step=progress.step, shown=setting.placement.writes)
    keeper = Keeper(setting, phase, progress, bar)
    validating = Averages()
    if phase.validation is None:
        validating = SharedValidation(setting)
    batches = phase.batches(done)

    def fit_epochs(first, last, steps):
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            validation_data=phase.validation,
            shuffle=False,  # the pipeline shuffles
            verbose=0,
            callbacks=Callbacks(
                [validating, keeper, bar, *setting.callbacks],
                add_history=True,
                model=model,
                epochs=last,
                steps=steps,
            ),
        )

    try:
        if progress.step:  # an epoch that was interrupted
            first = progress.epoch
            fit_epochs(first, first + 1, phase.steps - progress.step)
            if model.stop_training:
                return
            batches = phase.batches(phase.steps_done(progress))
        if progress.epoch < phase.epochs.stop:
            fit_epochs(progress.epoch, phase.epochs.stop, phase.steps)
    finally:
        bar.stop()
