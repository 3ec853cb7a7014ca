"""The folder that a training writes: which one it is, and that one process alone writes it."""

import contextlib
import dataclasses
import itertools
from pathlib import Path

from keras_resnet import files
from keras_resnet.files import LOCK, read_json
from keras_resnet.trained.run import RECIPE, REPORT
from keras_resnet.training import checkpoint
from keras_resnet.training.errors import WritingError
from keras_resnet.training.recipe import Recipe


def run_folder(output, recipe: Recipe) -> Path:
    """The folder for a training: that of an unfinished one of the same recipe, or a new one.

    Args:
        output: The folder. If it holds a finished run or other things, output-2, output-3, ... are
            looked at in turn.
        recipe: The training.

    Raises:
        ValueError: if the folder has an unfinished training of another recipe, or one that this
            release cannot read, or is a file.
    """
    output = Path(output)
    folder, number = output, 1
    while True:
        if folder.is_file():
            raise ValueError(
                f"The run folder {folder} is a file. Choose another output, or remove it."
            )
        if not folder.exists() or all(entry.name == LOCK for entry in folder.iterdir()):
            return folder
        if (folder / RECIPE).is_file() and not (folder / REPORT).exists():
            _check_same(folder, recipe_of(folder), recipe)
            return folder
        left = (folder / name for name in (checkpoint.NAME, LOCK))
        if (folder / REPORT).exists() and any(file.exists() for file in left):
            # Whoever finished it was killed a moment too early; or is just about to remove them.
            with contextlib.suppress(ValueError, OSError), _lock(folder):
                (folder / checkpoint.NAME).unlink(missing_ok=True)
        number += 1
        folder = output.with_name(f"{output.name}-{number}")


def recipe_of(folder) -> Recipe | None:
    """The recipe of the unfinished training in a run folder; None if there is none.

    Raises:
        ValueError: if it cannot be read.
    """
    if not (folder / RECIPE).is_file():
        return None
    return read_json(
        folder / RECIPE,
        Recipe.from_config,
        advice="It belongs to an unfinished training, perhaps by another release of the package: "
        "resume with that release, choose another output, or remove the folder.",
    )


def _check_same(folder, before, recipe):
    """Refuses another recipe than an unfinished training's; what that does not say is the default.

    The data may lie elsewhere now: what it is, its fingerprint says.
    """
    old = dataclasses.asdict(before.located())
    same = recipe.resolved_as(before)
    new = dataclasses.asdict(Recipe.from_json(same.to_json()).located())
    others = [
        f"{name} was {old[name]!r} and is {value!r}"
        for name, value in new.items()
        if old[name] != value and name != "data"
    ]
    if others:
        raise ValueError(
            f"{folder} has an unfinished training with other arguments: {'; '.join(others)}. Use "
            "the same arguments to resume, choose another output, or remove the folder."
        )


@contextlib.contextmanager
def locked(output, recipe: Recipe):
    """Keeps other processes out of a run folder, and removes what a killed one left half-written.

    Args:
        output: As of `run_folder`.
        recipe: As of `run_folder`.

    Yields:
        The folder.

    Raises:
        ValueError: as of `run_folder`, or if another process trains there.
        OSError: if the folder cannot be written.
    """
    while True:
        folder = run_folder(output, recipe)
        with _lock(folder):
            # Until it was locked, another process may have finished it.
            if run_folder(output, recipe) == folder:
                yield folder
                return


@contextlib.contextmanager
def _lock(folder):
    new = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    busy = ValueError(
        f"Another process is training in {folder}. Wait for it, or choose another output."
    )
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(files.locked(folder, busy))
        except OSError as error:
            raise WritingError(
                f"The training in {folder} stopped: {files.in_words(error)}. Choose another "
                "output, or make this one writable."
            ) from error
        try:
            files.remove_leftovers(folder)
            yield
        finally:
            held.close()
            with contextlib.suppress(OSError):  # not empty, which is well
                for made in new:
                    made.rmdir()
