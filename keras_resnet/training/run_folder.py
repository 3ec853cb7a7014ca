"""Chooses the run folder of a training, and locks it."""

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
    """Returns the folder for a training: one with an unfinished training to resume, or a new one.

    Args:
        output: The folder. If it has a finished run or other content, output-2, output-3, ... are
            tried.
        recipe: The recipe.

    Raises:
        ValueError: if the folder has an unfinished training with another recipe, or one that this
            release cannot read, or if it is a file.
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
            # The process that finished it was killed just before, or is about to remove them.
            with contextlib.suppress(ValueError, OSError), _lock(folder):
                (folder / checkpoint.NAME).unlink(missing_ok=True)
        number += 1
        folder = output.with_name(f"{output.name}-{number}")


def recipe_of(folder) -> Recipe | None:
    """Returns the recipe of an unfinished training in a run folder; None if there is none.

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
    """Raises a ValueError if a recipe differs from an unfinished training's.

    Missing fields have their defaults. The path of the data may have changed; its fingerprint is
    checked instead.
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
    """Locks a run folder, and removes temporary files of killed processes.

    Args:
        output: As for `run_folder`.
        recipe: As for `run_folder`.

    Yields:
        The folder.

    Raises:
        ValueError: as for `run_folder`, or if another process is training there.
        OSError: if the folder cannot be written.
    """
    while True:
        folder = run_folder(output, recipe)
        with _lock(folder):
            # Another process may have finished it before it was locked.
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
            with contextlib.suppress(OSError):  # not empty, which is fine
                for made in new:
                    made.rmdir()
