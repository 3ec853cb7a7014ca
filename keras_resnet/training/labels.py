"""Checks of a recipe against the labels of its data, and class weights."""

from keras_resnet.data.pipeline import check_labels
from keras_resnet.fields import suggestion


def check(recipe, sources, processes):
    """Validates a recipe for multi-label images.

    Args:
        recipe: A `Recipe`.
        sources: The training and the validation images.
        processes: Number of processes.

    Raises:
        ValueError: if a field of the recipe is not supported for them.
    """
    train, val = sources
    if not train.multi_label:
        return
    check_labels(train, recipe.augmentation)
    if recipe.loss != "binary_cross_entropy":
        raise ValueError(
            f"The images of {recipe.data} have several labels: set loss to 'binary_cross_entropy', "
            f"which takes each class by itself. Received: loss={recipe.loss!r}"
        )
    if recipe.class_weights is not None:
        raise ValueError(
            "class_weights needs one label for each image; give multi-label images a column "
            f"weight. Received: class_weights={recipe.class_weights!r}"
        )
    if recipe.teacher is not None:
        raise ValueError(
            "A teacher answers with one distribution over the classes, which multi-label images do "
            f"not have: remove it. Received: teacher={recipe.teacher!r}"
        )
    if processes > 1:
        raise ValueError(
            "Multi-label images are not supported with several processes: the mean average "
            "precision is not a mean over images. Train in one process, which may have several "
            f"devices. Received: processes={processes}"
        )
    if val.counts is not None and not any(val.counts):
        raise ValueError("No validation image has a label: there is nothing to validate by.")


def class_weights(said, source) -> list[float]:
    """Returns the weight of each class.

    Args:
        said: "balanced": number of images / (number of classes * number of images of the class);
            or {class name: weight}, 1 for others.
        source: The training images.

    Raises:
        ValueError: if a class does not exist, or the number of images of each class is unknown for
            "balanced".

    Source: sklearn.utils.class_weight.compute_class_weight.
    """
    names = source.class_names
    if said == "balanced":
        if source.counts is None:
            raise ValueError(
                "class_weights='balanced' needs the number of images of each class, which shards "
                "and data sets do not tell without being read as a whole. Pass {class: weight}."
            )
        return [sum(source.counts) / (len(names) * count) for count in source.counts]
    for name in said:
        if name not in names:
            raise ValueError(
                f"class_weights names {name!r}, which is no class. {suggestion(name, names)}"
            )
    weights = [float(said.get(name, 1)) for name in names]
    if not any(weights):
        raise ValueError(f"class_weights should not all be 0. Received: class_weights={said!r}")
    return weights
