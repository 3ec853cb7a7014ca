"""Builds a detector on a residual network and trains it to find drawn flowers.

    python examples/detection_backbone.py

On 2 busy CPU cores it took 6 minutes; the mean average precision at an IoU of 0.5 on 100 held-out
scenes was 0.82.

`features.pyramid` returns the feature maps C3, C4 and C5 of a ResNet-18, from which a feature
pyramid network (Lin et al. 2017, https://arxiv.org/abs/1612.03144, section 3) computes P3, P4 and
P5. At each of their positions, an anchor-free head (FCOS, Tian et al. 2020,
https://arxiv.org/abs/2006.09214, section 3) predicts the class of a flower and the edges of its
box.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, quiet

with quiet():
    import keras
    import numpy as np
    from drawn_scenes import Scene, draw_scenes
    from keras import layers, ops
    from rich.console import Console
    from rich.table import Table

    from keras_resnet import features
    from keras_resnet.drawn_flowers import KINDS
    from keras_resnet.visualize.charts import save_figure

CHANNELS = 96  # of the feature pyramid; 256 in the paper, for 80 classes in photographs
GROUPS = 16  # groups of channels for group normalization
BATCH = 8
HELD_OUT = 100  # number of test scenes
COLOURS = ("#1f77b4", "#d62728", "#9467bd", "#b8860b", "#2ca02c")  # of the boxes, by class


def feature_pyramid(maps: dict) -> list:
    """Computes P3, P4 and P5, with the same number of channels, from C3, C4 and C5."""
    outputs, above = [], None
    for name in sorted(maps, reverse=True):  # the top-down pathway, from C5
        x = layers.Conv2D(CHANNELS, 1, name=f"lateral_{name}")(maps[name])
        above = x if above is None else x + layers.UpSampling2D(2)(above)
        smooth = layers.Conv2D(CHANNELS, 3, padding="same", name=name.replace("C", "P"))
        outputs.insert(0, smooth(above))
    return outputs


def head(outputs: int, bias: float, name: str) -> keras.Model:
    """Three convolutions, the same for all levels."""
    parts = [keras.Input((None, None, CHANNELS))]
    for _ in range(2):
        parts.append(layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False))
        # As in FCOS: not batch normalization, since statistics differ between levels.
        parts.append(layers.GroupNormalization(GROUPS))
        parts.append(layers.ReLU())
    start = keras.initializers.Constant(bias)
    parts.append(layers.Conv2D(outputs, 3, padding="same", bias_initializer=start))
    parts.append(layers.Reshape((-1, outputs)))  # (batch, positions, outputs)
    return keras.Sequential(parts, name=name)


def detector(backbone: keras.Model) -> keras.Model:
    """Builds a model from pixels to "classes", logits (batch, positions, classes), and "boxes".

    The latter, (batch, positions, 4), are the distances from a position to the left, top, right
    and bottom edges of its flower's box, in strides of its level.
    """
    levels = feature_pyramid(backbone.output)
    # Almost all positions are background, so scores are initialized to 0.01: Lin et al. 2017, Focal
    # Loss, https://arxiv.org/abs/1708.02002, section 3.3. Boxes are initially 4 strides wide.
    heads = {
        "classes": head(len(KINDS), -np.log(99), "class_head"),
        "boxes": head(4, 2.0, "box_head"),
    }
    outputs = {
        name: layers.Concatenate(axis=1, name=name)([one(level) for level in levels])
        for name, one in heads.items()
    }
    return keras.Model(backbone.input, outputs, name="detector")


def positions(backbone: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centres in pixels (positions, 2) and the strides (positions,) of all outputs."""
    centres, strides = [], []
    for info in backbone.feature_info:
        rows, columns = backbone.output[info.name].shape[1:3]
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        centres.append((np.stack([x, y], axis=1) + 0.5) * info.stride)
        strides.append(np.full(rows * columns, info.stride))
    return np.concatenate(centres), np.concatenate(strides)


def targets(scene: Scene, centres: np.ndarray, strides: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the target outputs for a scene, without the batch axis.

    A flower is assigned to the first level on which it is at most 5 strides long, and there to the
    positions within 1.5 strides of its centre. All others are background, with zeros as classes.
    """
    classes = np.zeros((len(centres), len(KINDS)), np.float32)
    boxes = np.zeros((len(centres), 4), np.float32)
    levels = np.unique(strides)
    for label, box in zip(scene.labels, scene.boxes, strict=True):
        stride = levels[np.searchsorted(5 * levels[:-1], np.max(box[2:] - box[:2]))]
        near = np.abs(centres - (box[:2] + box[2:]) / 2).max(axis=1) < 1.5 * stride
        edges = np.concatenate([centres - box[:2], box[2:] - centres], axis=1)
        own = near & (strides == stride) & (edges.min(axis=1) > 0)  # also inside the box
        classes[own] = np.arange(len(KINDS)) == label
        boxes[own] = edges[own] / stride
    return {"classes": classes, "boxes": boxes}


def train(model: keras.Model, scenes: list[Scene], places: tuple, epochs: int) -> dict:
    """Trains with Adam; prints and returns the losses."""
    each = [targets(scene, *places) for scene in scenes]
    wanted = {name: np.stack([one[name] for one in each]) for name in each[0]}
    flower = wanted["classes"].max(axis=2)  # (scenes, positions): 1 on a flower, else 0
    count = np.maximum(flower.sum(axis=1, keepdims=True), 1)
    weights = {
        "classes": np.ones_like(flower) * flower.shape[1] / count,  # a sum over all positions,
        "boxes": flower,  # a mean over those on flowers
    }
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * -(-len(scenes) // BATCH))
    losses = {
        "classes": keras.losses.BinaryFocalCrossentropy(from_logits=True),
        "boxes": keras.losses.Huber(reduction="mean_with_sample_weight"),  # also called smooth L1
    }
    model.compile(keras.optimizers.Adam(rate), losses, jit_compile=False)

    def say(epoch, logs):
        print(
            f"Epoch {epoch + 1}: loss of the classes {logs['classes_loss']:.4f}, "
            f"of the boxes {logs['boxes_loss']:.4f}",
            flush=True,
        )

    images = np.stack([scene.image for scene in scenes])
    told = keras.callbacks.LambdaCallback(on_epoch_end=say)
    return model.fit(
        images, wanted, BATCH, epochs, verbose=0, callbacks=[told], sample_weight=weights
    ).history


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of a box (4,) with others (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return common / (np.prod(box[2:] - box[:2]) + areas - common)


def find(model: keras.Model, images: np.ndarray, places: tuple, least=0.05) -> list[list[tuple]]:
    """Returns the detected flowers of each image, as (score, label, box), highest score first.

    Non-maximum suppression keeps the best one of boxes with an IoU above 0.5, whatever its class,
    since flowers do not hide each other here.
    """
    centres, strides = places
    outputs = model.predict(images, BATCH, verbose=0)
    scores = ops.convert_to_numpy(ops.sigmoid(outputs["classes"]))
    edges = outputs["boxes"] * strides[:, None]
    boxes = np.concatenate([centres - edges[..., :2], centres + edges[..., 2:]], axis=2)
    found = []
    for score, box in zip(scores, boxes.clip(0, images.shape[1]), strict=True):
        kept, best, labels = [], score.max(axis=1), score.argmax(axis=1)
        for place in best.argsort()[::-1]:
            if best[place] < least:
                break
            others = np.array([other for *_, other in kept]).reshape(-1, 4)
            if not (iou(box[place], others) > 0.5).any():
                kept.append((float(best[place]), int(labels[place]), box[place]))
        found.append(kept)
    return found


def average_precision(found: list[list[tuple]], scenes: list[Scene], label: int) -> float:
    """Computes the area under the precision-recall curve of one class.

    In the order of scores, a box is correct if its IoU with an unmatched flower of its class is 0.5
    or more.
    """
    flowers = [scene.boxes[scene.labels == label] for scene in scenes]
    taken = [np.zeros(len(boxes), bool) for boxes in flowers]
    ranked = [(score, n, box) for n, row in enumerate(found) for score, k, box in row if k == label]
    right = []
    for _, number, box in sorted(ranked, key=lambda one: -one[0]):
        overlaps = np.where(taken[number], 0, iou(box, flowers[number]))
        right.append(overlaps.max(initial=0) >= 0.5)
        if right[-1]:
            taken[number][overlaps.argmax()] = True
    right = np.array(right, bool)
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    # The highest precision at this recall or more.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[right].sum() / sum(map(len, flowers)))


def plot(scenes, found, path, least=0.4) -> Path:
    """Draws scenes with the true boxes, and with detected ones with a score above `least`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9.4), layout="constrained")
    grid = figure.subplots(4, 4)
    for axes, scene, row in zip(grid.reshape(-1, 2), scenes, found, strict=False):
        truth = [(None, *one) for one in zip(scene.labels, scene.boxes, strict=True)]
        draw_boxes(axes[0], scene.image, truth)
        draw_boxes(axes[1], scene.image, [one for one in row if one[0] >= least])
    for axes, title in zip(grid[0], ("true", "found, with scores") * 2, strict=True):
        axes.set_title(title, fontsize=12)
    return save_figure(figure, path)


def draw_boxes(axes, image, boxes):
    """Draws an image with labelled boxes, (score or None, class, edges)."""
    axes.imshow(image, interpolation="bicubic")
    axes.autoscale(False)  # lines of boxes may extend beyond the edge
    axes.set_axis_off()
    for score, label, box in boxes:
        x1, y1, x2, y2 = box - 0.5  # in imshow, the centre of the first pixel is 0
        for colour, width in (("white", 4), (COLOURS[label], 2)):
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=width)
        right = x1 > len(image) / 2  # text would extend beyond the picture
        axes.text(
            x2 if right else x1,
            y1,
            KINDS[label] + ("" if score is None else f" {score:.2f}"),
            color="white",
            fontsize=10,
            ha="right" if right else "left",
            va="top",
            bbox={"facecolor": COLOURS[label], "edgecolor": "white", "pad": 1.5},
        )


def main(
    images: Annotated[int, typer.Option(help="Number of training images.", min=1)] = 1600,
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    image_size: Annotated[int, typer.Option(help="Image size in pixels, a multiple of 32.")] = 96,
    weights: Annotated[
        Path | None, typer.Option(help="Weights file for the ResNet-18. [default: random weights]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    output: Annotated[Path, typer.Option(help="Image file to write.")] = Path("detection.png"),
):
    """Train a detector of drawn flowers, and print its average precision on held-out scenes."""
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    try:
        if image_size < 64 or image_size % 32:
            raise ValueError(
                "--image-size should be a multiple of 32, 64 or more: P5 is 32 times smaller. "
                f"Received: {image_size}"
            )
        backbone = features.pyramid(
            "resnet18",
            ("C3", "C4", "C5"),
            weights=weights,
            input_shape=(image_size, image_size, 3),
            include_preprocessing=True,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")
    model, places = detector(backbone), positions(backbone)
    train(model, draw_scenes(images, image_size, f"{seed}/train"), places, epochs)
    scenes = draw_scenes(HELD_OUT, image_size, f"{seed}/held out")
    found = find(model, np.stack([scene.image for scene in scenes]), places)
    table = Table("flower", "in held-out scenes", "average precision (IoU 0.5)")
    precisions = []
    for label, kind in enumerate(KINDS):
        count = sum((scene.labels == label).sum() for scene in scenes)
        precisions.append(average_precision(found, scenes, label))
        table.add_row(kind, str(count), f"{precisions[-1]:.2f}")
    Console().print(table)
    print(f"Mean average precision {np.mean(precisions):.3f}.")
    print(f"Drawn in {plot(scenes, found, output)}. {time.monotonic() - started:.0f} s in all.")


if __name__ == "__main__":
    typer.run(main)
