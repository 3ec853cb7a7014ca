"""Recipes: validation, JSON, and the named ones."""

import dataclasses
import inspect
import json
import operator
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_resnet.data import Augmentation
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import RECIPES, Recipe, named_recipe
from keras_resnet_cli import app

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"image_size": 16}, "image_size=16"),
        ({"image_size": 224.0}, "image_size=224.0"),
        ({"train_size": 16}, "train_size=16"),
        ({"image_size": 256, "resize": 224}, "image_size=256, resize=224"),
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"schedule": "step"}, "milestones"),
        ({"milestones": (3,)}, "schedule='constant', milestones"),
        ({"schedule": "step", "milestones": (5, 3)}, "ascend"),
        ({"schedule": "step", "milestones": (3, 15)}, "milestones=.3, 15., epochs=15"),
        ({"warmup_epochs": 15}, "warmup_epochs=15, epochs=15"),
        ({"epochs": 0}, "no epochs to train"),
        ({"epochs": -1}, "epochs=-1"),
        ({"epochs": True}, "epochs=True"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": "fast"}, "a number"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"ema_momentum": 1.0}, "ema_momentum=1.0"),
        ({"validation_split": 1.5}, "validation_split=1.5"),
        ({"optimizer": "rmsprop"}, "sgd, sgdw, adam, adamw, lamb"),
        ({"loss": "hinge"}, "cross_entropy, binary_cross_entropy"),
        ({"target_threshold": 0.2}, "target_threshold=0.2, loss='cross_entropy'"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        (
            {"layer_decay": 0.7, "learning_rate_multipliers": {"fc": 2}},
            "layer_decay=0.7, learning_rate_multipliers",
        ),
        ({"teacher_share": 0.3}, "teacher=None, teacher_share=0.3"),
        ({"temperature": 2.0}, "need a teacher"),
        ({"swa_start": 15}, "swa_start=15, epochs=15"),
        ({"swa_start": 5, "ema_momentum": 0.9}, "swa_start=5, ema_momentum=0.9"),
        ({"swa_start": 5, "early_stopping": 3}, "early_stopping=3"),
        ({"swa_learning_rate": 0.1}, "needs swa_start"),
        ({"train_sizes": (128, 160), "train_size": 160}, "train_size=160, train_sizes="),
        ({"train_sizes": (128, 160), "epochs": 1}, "epochs=1"),
        ({"train_sizes": (16, 160)}, "Received: train_sizes=16"),
        ({"train_sizes": 160}, "a tuple of image sizes"),
        ({"nesterov": True}, "nesterov=True, optimizer='adam'"),
        ({"model": "resnet19"}, "model='resnet19'"),
        ({"precision": "float16"}, "mixed_float16"),
        ({"weights": "w.pth", "freeze_until": "layer5"}, "freeze_until .* 'layer5'"),
        ({"weights": "w.pth", "freeze_until": "fc"}, "nothing to train"),
        ({"freeze_until": "layer2"}, "need pretrained weights"),
        ({"head_epochs": 2}, "need pretrained weights"),
        ({"learning_rate_multipliers": {"layer9": 0.1}}, "'layer9'"),
        ({"learning_rate_multipliers": {"fc": -1}}, "'fc': -1"),
        ({"learning_rate_multipliers": 3}, "should be a dict"),
        ({"deterministic": "False"}, "should be a bool. Received: deterministic='False'"),
        ({"data": 123}, "should be a str"),
        ({"augmentation": 5}, "should be a Augmentation"),
        ({"schedule": "step", "milestones": 5}, "should be a tuple"),
        ({"schedule": "step", "milestones": (5.5,)}, "milestones should be a tuple of epochs"),
        (
            {"augmentation": Augmentation(crop_scale=None), "train_size": 300},
            "train_size=300, resize=None",
        ),
        (
            {"augmentation": Augmentation(mixup=0.2, repeats=4), "batch_size": 7},
            "at least twice augmentation.repeats. Received: batch_size=7",
        ),
    ],
    ids=str,
)
def test_invalid_recipes(arguments, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**arguments)


@pytest.mark.parametrize(
    "model, named", [("resnetrs50", "maxpool"), ("resnet10t", "conv1"), ("resnetv2_18", "norm")]
)
def test_layers_of_certain_networks_are_valid_names(model, named):
    Recipe(model=model, weights="w.pth", freeze_until=named)
    if named != "conv1":
        with pytest.raises(ValueError, match=f"freeze_until should name a layer.*{named!r}"):
            Recipe(model="resnet18", weights="w.pth", freeze_until=named)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_json(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert type(Recipe.from_json(recipe.to_json()).milestones) is tuple


def test_changes():
    recipe = Recipe().changed({"augmentation.mixup": 0.2, "epochs": 3, "milestones": [1]} | STEP)
    assert recipe.augmentation == Augmentation(mixup=0.2)
    assert (recipe.epochs, recipe.milestones) == (3, (1,))
    assert named_recipe("imagenet_v2", image_size=128).preprocessing.resize == 146
    run = {**json.loads(Recipe().to_json()), "classes": ["a"], "command": "x"}
    assert Recipe.from_json(json.dumps(run)) == Recipe()
    with pytest.raises(ValueError, match="Did you mean epochs"):
        Recipe().changed({"epoch": 3})
    with pytest.raises(ValueError, match=r"Did you mean augmentation\.mixup"):
        Recipe().changed({"augmentation.mix_up": 3})
    with pytest.raises(ValueError, match="is not valid JSON"):
        Recipe.from_json("{")
    with pytest.raises(ValueError, match="JSON object"):
        Recipe.from_json("[]")
    with pytest.raises(ValueError, match="Did you mean flowers"):
        named_recipe("flower")


def test_preprocessing_defaults_to_that_of_the_weights():
    """It is adapted to the recipe's size; given fields take precedence, until weights change."""
    theirs = Preprocessing(236, 224, (0.5,) * 3, (0.4,) * 3, False, "bicubic", "squash")
    recipe = Recipe(image_size=128, std=(0.3, 0.3, 0.3), exif=True).with_pixels_of(theirs)
    expected = Preprocessing(135, 128, (0.5,) * 3, (0.3,) * 3, True, "bicubic", "squash")
    assert recipe.preprocessing == expected
    assert Recipe.from_json(recipe.to_json()) == recipe == recipe.with_pixels_of(Preprocessing())
    assert Recipe(image_size=128, exif=True).resolved_as(recipe).preprocessing == expected
    assert recipe.changed({"weights": "w.pth"}) == Recipe(
        image_size=128, exif=True, weights="w.pth"
    )
    assert Recipe().preprocessing == Preprocessing() == Recipe().training_preprocessing


def test_the_help_of_fields_stands_once():
    """The page's table and the command's help are generated from the recipe's source."""
    tools = runpy.run_path(ROOT / "tools" / "recipe_table.py")
    assert tools["table"]() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    about = {field.name: field.metadata["about"] for field in dataclasses.fields(Recipe)}
    done = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "1000"})
    for name in ("data", "epochs", "max_bad", "deterministic"):
        assert about[name] in done.output
        assert about[name] in inspect.getdoc(Recipe).replace("\n        ", " ")


def test_equal_recipes_have_equal_hashes():
    recipes = [Recipe(learning_rate_multipliers={"fc": rate}, epochs=9) for rate in (1, 1.0, 2)]
    assert recipes[0] == recipes[1] != recipes[2]
    assert hash(recipes[0]) == hash(recipes[1])
    assert len({*recipes, Recipe(), *RECIPES.values()}) == 2 + len(RECIPES)
    assert Recipe.from_json(recipes[0].to_json()) == recipes[0]


STEP = {"schedule": "step"}


def test_the_named_ones_have_the_published_numbers():
    """Those of the article, of CIFAR ResNets in PyTorch, and torchvision's two."""

    def values(name, *fields):
        return tuple(getattr(RECIPES[name], field) for field in fields)

    fields = ("model", "optimizer", "learning_rate", "batch_size", "epochs", "image_size")
    assert values("flowers", *fields) == ("resnet34", "adam", 1e-4, 16, 15, 224)
    fields = ("optimizer", "learning_rate", "batch_size", "epochs", "milestones", "weight_decay")
    assert values("cifar", *fields) == ("sgd", 0.1, 128, 200, (100, 150), 1e-4)
    assert values("imagenet_v1", *fields) == ("sgd", 0.1, 256, 90, (30, 60), 1e-4)
    fields = ("learning_rate", "batch_size", "epochs", "warmup_epochs", "weight_decay", "decay_all")
    assert values("imagenet_v2", *fields) == (0.5, 1024, 600, 5, 2e-5, False)
    assert values("imagenet_v2", "train_size", "image_size", "resize") == (176, 224, 232)
    augmentation = dataclasses.asdict(RECIPES["imagenet_v2"].augmentation)
    assert augmentation["policy"] == "trivial_augment_wide"
    names = ("erasing", "mixup", "cutmix", "label_smoothing")
    assert [augmentation[name] for name in names] == [0.1, 0.2, 1.0, 0.1]
    # torchvision: 1 - (1 - 0.99998) * 1024 images * 32 steps / 600 epochs, every 32 steps.
    assert RECIPES["imagenet_v2"].ema_momentum == pytest.approx(
        (1 - 2e-5 * 1024 * 32 / 600) ** (1 / 32), abs=2e-7
    )


def test_the_table_of_resnet_strikes_back():
    """https://arxiv.org/abs/2110.00476, table 2: procedures A1, A2 and A3."""
    rows = {
        "train_size": (None, None, 160),
        "image_size": (224, 224, 224),
        "epochs": (600, 300, 100),
        "batch_size": (2048,) * 3,
        "optimizer": ("lamb",) * 3,
        "learning_rate": (5e-3, 5e-3, 8e-3),
        "schedule": ("cosine",) * 3,
        "weight_decay": (0.01, 0.02, 0.02),
        "warmup_epochs": (5,) * 3,
        "dropout": (0.0,) * 3,
        "drop_path": (0.05, 0.05, 0.0),
        "loss": ("binary_cross_entropy",) * 3,
        "ema_momentum": (None,) * 3,
        "swa_start": (None,) * 3,
        "augmentation.label_smoothing": (0.1, 0.0, 0.0),
        "augmentation.repeats": (3, 3, 1),
        "augmentation.flip": (0.5,) * 3,
        "augmentation.policy": (*("rand-m7-mstd0.5-inc1",) * 2, "rand-m6-mstd0.5-inc1"),
        "augmentation.mixup": (0.2, 0.1, 0.1),
        "augmentation.cutmix": (1.0,) * 3,
        "augmentation.erasing": (0.0,) * 3,
        "augmentation.color_jitter": (None,) * 3,
    }
    for field, values in rows.items():
        found = tuple(operator.attrgetter(field)(RECIPES[name]) for name in ("a1", "a2", "a3"))
        assert found == values, field
    assert RECIPES["a1"].preprocessing.resize == int(224 / 0.95)


def test_square_images_with_weights_for_rectangles():
    """timm's 256 x 192 at crop_pct 0.95: training images are square, resized by one length."""
    recipe = Recipe(image_size=224).with_pixels_of(Preprocessing((269, 202), (256, 192)))
    assert recipe.resize == 236
    assert Recipe(image_size=224).with_pixels_of(Preprocessing(235, 224)).resize == 235
