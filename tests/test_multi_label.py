"""Several labels per image: metrics, training, and predictions."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from labelled_flowers import CLASSES, labels_of, write_tables
from sklearn import metrics

import keras_resnet
from keras_resnet import bulk, data, export, trained, training, weights
from keras_resnet.trained import MultiLabelEvaluation, label_metrics
from keras_resnet.trained.exporting import SUFFIXES


@pytest.fixture(scope="module")
def finished(tiny_rows, draw_flowers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    flowers = draw_flowers(folder / "flowers", train=6, val=3)
    write_tables(flowers)
    weights.save_hub(keras_resnet.ResNet18(classes=4), folder / "start")
    recipe = training.Recipe(
        data=str(flowers),
        model="resnet18",
        weights=str(folder / "start"),
        image_size=32,
        head_epochs=1,
        epochs=2,
        batch_size=8,
        loss="binary_cross_entropy",
        augmentation=data.Augmentation(mixup=0.2, cutmix=1.0),
        learning_rate=1e-3,
        ema_momentum=0.5,
    )
    return training.train(recipe, folder / "run"), flowers, recipe


@pytest.fixture(scope="module")
def network(finished):
    return trained.open_network(finished[0])


@pytest.fixture(scope="module")
def found(finished, network):
    return network.evaluate(finished[1])


def random_predictions(seed, rounded):
    rng = np.random.default_rng(seed)
    targets = (rng.random((40, 5)) < [0.5, 0.2, 0.9, 0.05, 0.3]).astype(np.uint8)
    targets[0] = 1  # each class occurs
    scores = np.clip(rng.normal(targets * 0.3 + 0.3, 0.2), 0, 1).astype(np.float32)
    return targets, np.round(scores, 1) if rounded else scores


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(seed, rounded):
    targets, scores = random_predictions(seed, rounded)
    found = MultiLabelEvaluation.of("abcde", map(str, range(40)), targets, scores)
    each = metrics.average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(found.average_precisions, each, rtol=1e-12)
    predicted = scores >= 0.5
    np.testing.assert_array_equal(found.predicted, predicted)
    f1 = metrics.f1_score(targets, predicted, average=None, zero_division=0)
    np.testing.assert_allclose(found.f1, f1, rtol=1e-12)
    expected = {
        "loss": metrics.log_loss(
            targets.ravel(), np.clip(scores.astype(float).ravel(), 1e-7, 1 - 1e-7)
        ),
        "mean_average_precision": metrics.average_precision_score(targets, scores),
        "f1_micro": metrics.f1_score(targets, predicted, average="micro"),
        "f1_macro": metrics.f1_score(targets, predicted, average="macro", zero_division=0),
    }
    assert found.figures == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
def test_thresholds_have_the_highest_f1_of_all(rounded):
    targets, scores = random_predictions(5, rounded)
    found = MultiLabelEvaluation.of("abcde", (), targets, scores).with_best_thresholds()
    for index in range(5):
        precision, recall, values = metrics.precision_recall_curve(
            targets[:, index], scores[:, index]
        )
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert found.f1[index] == pytest.approx(best, rel=1e-12)
        if not rounded:  # not near any score, so rounding does not change predictions
            assert np.abs(values - found.thresholds[index]).min() > 1e-6


def test_a_class_that_no_image_shows_is_left_out():
    targets, scores = random_predictions(0, False)
    targets[:, 1] = 0
    found = MultiLabelEvaluation.of("abcde", (), targets, scores).with_best_thresholds()
    rest = [0, 2, 3, 4]
    assert np.isnan(found.average_precisions[1]) and np.isnan(found.f1[1])
    assert found.thresholds[1] == 0.5
    expected = metrics.average_precision_score(targets[:, rest], scores[:, rest])
    assert found.figures["mean_average_precision"] == pytest.approx(expected)
    assert found.of_classes["b"] == {"average_precision": None, "f1": None, "threshold": 0.5}
    assert label_metrics.f1_micro(targets[:, 1:2], targets[:, 1:2]) == 0


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_run_folder(finished, found):
    folder, flowers, _ = finished
    assert {"confusion_matrix.png", "mistakes.png"}.isdisjoint(f.name for f in folder.iterdir())
    assert json.loads((folder / "recipe.json").read_text())["multi_label"] is True
    assert training.Recipe.from_json((folder / "recipe.json").read_text()).data == str(flowers)
    history = rows(folder / "history.csv")
    assert [row["phase"] for row in history] == ["head", "network", "network"]
    figures = {"val_loss", "val_mean_average_precision", "val_f1_micro", "val_f1_macro"}
    assert {"loss", *figures} < history[0].keys() and "accuracy" not in history[0]
    best = max(float(row["val_mean_average_precision"]) for row in history)
    assert found.figures["mean_average_precision"] == pytest.approx(best, abs=1e-5)
    report = (folder / "report.md").read_text()
    assert (
        "| class | train | validate | AP | F1 | threshold |" in report and "Missing" not in report
    )
    assert f"| mean average precision of the best epoch | {best:.4f} |" in report
    thresholds = json.loads((folder / "thresholds.json").read_text())
    assert tuple(thresholds) == CLASSES
    np.testing.assert_array_equal(list(thresholds.values()), found.thresholds)
    for row, file, shown, predicted in zip(
        rows(folder / "predictions.csv"), found.files, found.targets, found.predicted, strict=True
    ):
        assert row["file"] == file
        for said, chosen in ((row["labels"], shown), (row["predicted"], predicted)):
            assert said == ";".join(name for name, one in zip(CLASSES, chosen, strict=True) if one)
        assert len(row["probabilities"].split(";")) == max(predicted.sum(), 1)


def test_evaluation_equals_scikit_learn_on_the_outputs_of_the_model(network, found):
    """Outputs are computed by Keras; the file names determine the labels."""
    images = network.preprocessing.batch({f: Path(f).read_bytes() for f in found.files})
    scores = network.model.predict(images, verbose=0)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert not np.allclose(scores.sum(1), 1)  # the scores are independent
    expected = [
        [label in labels_of(file.split("/")[-2], int(file[-7:-4])) for label in CLASSES]
        for file in found.files
    ]
    np.testing.assert_array_equal(found.targets, expected)
    value = metrics.average_precision_score(expected, scores)
    assert found.figures["mean_average_precision"] == pytest.approx(value, abs=1e-6)
    assert found.counted == "the 15 images set aside for validation" and found.trained == 0


def test_predictions_are_the_classes_that_reach_their_thresholds(network, found):
    answers = dict(network.predict(found.files))
    for file, predicted in zip(found.files, found.predicted, strict=True):
        (answer,) = (answers[path] for path in answers if str(path) == file)
        assert {name for name, _ in answer} == {CLASSES[i] for i in np.flatnonzero(predicted)}
        assert [p for _, p in answer] == sorted((p for _, p in answer), reverse=True)
    ((_, best),) = network.predict(found.files[:1], top=2)
    assert [name for name, _ in best] == [CLASSES[i] for i in np.argsort(-found.scores[0])[:2]]


def test_saved_models_say_what_is_predicted(finished, network, found):
    version = finished[0] / "saved_model" / "1"
    signature = tf.saved_model.load(version).signatures["serving_default"]
    contents = tf.constant([Path(file).read_bytes() for file in found.files])
    answer = {name: value.numpy() for name, value in signature(image_bytes=contents).items()}
    np.testing.assert_allclose(answer["probabilities"], found.scores, atol=1e-5)
    np.testing.assert_array_equal(answer["predicted"], found.predicted)
    assert answer["classes"][0, 0].decode() == CLASSES[found.scores[0].argmax()]
    record = export.record.read(version)
    assert record["class_names"] == list(CLASSES)
    assert record["thresholds"] == list(network.thresholds)
    assert set(record["signature"]["serving_default"]["outputs"]) == set(answer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the converters warn of their own code
@pytest.mark.parametrize("kind", SUFFIXES)
def test_exported_files_predict_the_same_classes(kind, network, found, tmp_path):
    path = network.export(kind, (tmp_path / "model").with_suffix(SUFFIXES[kind]))
    record = export.record.read(path)
    assert record["thresholds"] == list(network.thresholds)
    scores = trained.open_runtime(network, path)(
        network.preprocessing.batch({file: Path(file).read_bytes() for file in found.files})
    )
    np.testing.assert_allclose(scores, found.scores, atol=1e-5)
    bulk.predict(network, found.files, tmp_path / "out", runtime=path)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    for row, predicted in zip(rows, found.predicted, strict=True):
        assert set(row["predicted"]) == {CLASSES[i] for i in np.flatnonzero(predicted)}


@pytest.mark.slow
def test_a_server_says_what_is_predicted(finished, found, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples" / "serving")
    import litserve_server

    server = litserve_server.Classifier(finished[0] / "saved_model" / "1")
    server.setup("cpu")
    images = [Path(file).read_bytes() for file in found.files]
    predictions = server.encode_response(server.predict(images))["predictions"]
    assert json.loads(json.dumps(predictions)) == predictions
    assert [row["predicted"] for row in predictions] == found.predicted.tolist()


def test_an_explanation_is_of_the_most_probable_class(network, found, tmp_path):
    explanation = network.explain(found.files[0], tmp_path / "explained.png")
    assert explanation.class_name == CLASSES[found.scores[0].argmax()]
    assert explanation.probability == pytest.approx(found.scores[0].max(), abs=1e-5)
    other = network.explain(found.files[0], tmp_path / "other.png", class_name=CLASSES[3])
    assert other.probability == pytest.approx(found.scores[0, 3], abs=1e-5)


def test_weights_and_hub_folders_keep_thresholds(finished, network, found, tmp_path):
    network.save_hub(tmp_path / "hub")
    for source in (tmp_path / "hub", finished[0] / "best.pth", finished[0] / "best.keras"):
        again = trained.open_network(weights=source)
        assert again.thresholds == network.thresholds
        content = [Path(found.files[0]).read_bytes()]
        np.testing.assert_allclose(again.probabilities(content)[0], found.scores[0], atol=1e-5)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "mean_average_precision" in card


def test_the_command(finished, command_here, found):
    folder, flowers, _ = finished
    done = command_here("evaluate", "--run", folder, "--data", flowers)
    assert done.returncode == 0, done.stderr
    said = found.figures["mean_average_precision"]
    assert done.stdout.startswith(f"mAP {said:.4f}, F1 micro") and "  yellow\n" in done.stdout
    done = command_here("evaluate", "--run", folder, "--data", flowers, "--json")
    summary = json.loads(done.stdout)
    assert (
        summary["classes"].keys() == set(CLASSES)
        and summary["f1_micro"] == found.figures["f1_micro"]
    )
    done = command_here("predict", found.files[0], "--run", folder, "--json")
    (row,) = json.loads(done.stdout)
    assert sorted(row["classes"]) == [CLASSES[i] for i in np.flatnonzero(found.predicted[0])]


def test_options_for_one_label_are_refused(finished, network, tmp_path):
    _, flowers, recipe = finished
    for change, said in (
        ({"loss": "cross_entropy"}, "set loss to 'binary_cross_entropy'"),
        ({"class_weights": "balanced"}, "class_weights needs one label"),
        ({"augmentation.label_smoothing": 0.1}, "label_smoothing spreads the one label"),
        ({"teacher": "imagenet"}, "A teacher answers with one distribution"),
    ):
        with pytest.raises(ValueError, match=said):
            training.train(recipe.changed(change), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="predicts several for each image, but the labels of"):
        network.evaluate(flowers / "train")
    with pytest.raises(ValueError, match="thresholds need a network that ends in a sigmoid"):
        export.onnx(keras_resnet.ResNet18(classes=2), tmp_path / "x.onnx", thresholds=[0.5, 0.5])
    with pytest.raises(ValueError, match="thresholds should be 4 numbers"):
        export.onnx(network.model, tmp_path / "x.onnx", thresholds=[0.5, 2, 0.5, 0.5])


def test_binary_cross_entropy_of_mixed_labels_is_mixed():
    """MixUp and CutMix of 0/1 labels give fractions, and with image weights, weighted fractions."""
    labels = tf.constant([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]])
    shares, partners = tf.constant([0.75, 0.75, 0.75]), tf.constant([2, 0, 1])
    from keras_resnet.data.augmentation import mixing

    (mixed,) = mixing.mix_labels(labels, partners, shares)
    np.testing.assert_allclose(mixed, [[0.75, 0.75, 0], [0.25, 1, 0.75], [0, 0.25, 0.25]])
    weights_ = tf.constant([1.0, 3.0, 0.0])
    weighted, total = mixing.mix_labels(labels, partners, shares, weights_)
    logits = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    for loss in (
        keras.losses.BinaryCrossentropy(from_logits=True, reduction=None),
        keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None),
    ):
        expected = [
            0.75 * weights_[row] * loss(labels, logits[row][None].repeat(3, 0))[row]
            + 0.25 * weights_[other] * loss(labels, logits[row][None].repeat(3, 0))[other]
            for row, other in enumerate(partners.numpy())
        ]
        np.testing.assert_allclose(total * loss(weighted, logits), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "backend, devices",
    [
        pytest.param("jax", 1, marks=pytest.mark.backend),
        pytest.param("tensorflow", 2, marks=pytest.mark.slow),
    ],
)
def test_jax_and_several_devices_train_the_same(backend, devices, run_python, tmp_path):
    """Metrics equal those of TensorFlow on one device, also with image weights."""
    pytest.importorskip(backend)
    write_tables(data.drawn_flowers(tmp_path / "flowers", train=8, val=3))
    weights.save_hub(keras_resnet.ResNet18(classes=4), tmp_path / "start")
    for name, count, folder in (("tensorflow", 1, "one"), (backend, devices, "other")):
        done = run_python(
            *("-m", "keras_resnet_cli", "train", "--data", "flowers", "--model", "resnet18"),
            *(
                "--weights",
                "start",
                "--image-size",
                32,
                "--batch-size",
                8,
                "--learning-rate",
                1e-6,
                "--epochs",
                1,
            ),
            *("--set", "optimizer=sgd", "--set", "loss=binary_cross_entropy"),
            *("--devices", count, "--output", folder, "--set", "augmentation.mixup=0.2"),
            variables={"KERAS_BACKEND": name},
        )
        assert done.returncode == 0, done.stderr
    (one,), (other,) = (rows(tmp_path / folder / "history.csv") for folder in ("one", "other"))
    assert one.keys() == other.keys()
    for name in one.keys() - {"phase", "images_per_second"}:
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-4), name
