"""Similar images and duplicates, compared with brute force by NumPy."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_networks import small

import keras_resnet
from keras_resnet import bulk, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A minimal run folder, 30 images, and their embeddings in files of 8 rows."""
    folder = tmp_path_factory.mktemp("similar")
    (folder / "run").mkdir()
    small("cifar").save(folder / "run" / "best.keras")
    (folder / "run" / "class_indices.json").write_text('{"0": "a", "1": "b", "2": "c"}')
    recipe = {"resize": 36, "image_size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    (folder / "run" / "recipe.json").write_text(json.dumps(recipe))
    photos, rng = folder / "photos", np.random.default_rng(0)
    photos.mkdir()
    for number in range(28):
        pixels = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        pixels.resize((40, 40), Image.Resampling.NEAREST).save(photos / f"{number:02}.png")
    shutil.copy(photos / "05.png", photos / "20.png")
    shutil.copy(photos / "05.png", photos / "copy.png")
    (photos / "10.jpg").write_text("no image")
    network = trained.open_network(folder / "run")
    bulk.embed(network, photos, folder / "embeddings", rows_per_part=8, batch_size=4)
    return folder


def vectors_of(index):
    """Returns {path: normalised embedding}, read by pyarrow."""
    rows = pq.read_table(index).to_pylist()
    found = {row["path"]: np.array(row["embedding"]) for row in rows if row["error"] is None}
    assert len(rows) == len(found) + 1
    return {path: vector / np.linalg.norm(vector) for path, vector in found.items()}


def test_the_most_similar_images(folder, command_here):
    """The image itself comes first, then those that NumPy finds; bad images are left out."""
    vectors, photos = vectors_of(folder / "embeddings"), folder / "photos"
    paths, matrix = list(vectors), np.stack(list(vectors.values()))
    queries = ("05.png", "10.jpg", "07.png")
    done = command_here(
        *("similar", *(photos / name for name in queries), "--run", folder / "run", "--json"),
        *("--index", folder / "embeddings", "--top", 4),
    )
    assert done.returncode == 1 and "1 images could not be decoded" in done.stderr
    assert f"Skipped {photos / '10.jpg'}" in done.stderr
    found = json.loads(done.stdout)
    assert [row["file"] for row in found] == [str(photos / "05.png"), str(photos / "07.png")]
    for row in found:
        expected = matrix @ vectors[row["file"]]
        best = np.argsort(-expected, kind="stable")[:4]
        assert {one["file"] for one in row["similar"]} == {paths[place] for place in best}
        values = [one["similarity"] for one in row["similar"]]
        np.testing.assert_allclose(values, expected[best], atol=1e-5)
    same = {str(photos / name) for name in ("05.png", "20.png", "copy.png")}
    assert {one["file"] for one in found[0]["similar"][:3]} == same
    done = command_here(
        *("similar", photos / "07.png", "--run", folder / "run", "--top", 1),
        *("--index", folder / "embeddings"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{photos / '07.png'}:\n  1.0000  {photos / '07.png'}\n"


def test_duplicates(folder, command_here):
    """Equal files; at a lower threshold, the groups found by a loop over all pairs."""
    photos = folder / "photos"
    done = command_here("duplicates", folder / "embeddings", "--threshold", 1)
    assert done.returncode == 0, done.stderr
    first, *copies, summary = done.stdout.splitlines()
    assert first == f"{photos / '05.png'}:"
    assert sorted(copies) == [f"  1.0000  {photos / name}" for name in ("20.png", "copy.png")]
    assert summary == "29 images, 2 duplicates of 1 images"
    vectors = vectors_of(folder / "embeddings")
    pairs = np.stack(list(vectors.values())) @ np.stack(list(vectors.values())).T
    threshold = float(np.quantile(pairs, 0.8))
    done = command_here("duplicates", folder / "embeddings", "--threshold", threshold, "--json")
    expected, taken = {}, set()
    for row, (path, vector) in enumerate(vectors.items()):
        if path in taken:
            continue
        later = list(vectors.items())[row + 1 :]
        near = {
            other for other, value in later if other not in taken and value @ vector > threshold
        }
        taken |= near
        if near:
            expected[path] = near
    found = json.loads(done.stdout)
    assert len(expected) > 2
    groups = {group["file"]: {one["file"] for one in group["duplicates"]} for group in found}
    assert groups == expected


def written(folder, vectors, dtype=np.float32):
    """Writes embeddings in the format of `embed`: three parts, and a fourth without embeddings."""
    folder.mkdir()
    job = {"writes": "embeddings", "layer": "avgpool", "weights_sha256": "0", "preprocessing": {}}
    job |= {"export": None, "rows": len(vectors) + 1}
    (folder / "_job.json").write_text(json.dumps(job))
    for part, rows in enumerate(np.array_split(np.arange(len(vectors)), 3)):
        values = pa.array(vectors[rows].astype(dtype).ravel())
        column = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        table = pa.table({"path": pa.array(list(map(str, rows)), pa.string()), "embedding": column})
        pq.write_table(table, folder / f"part-{part:05}.parquet")
    bad = pa.table({"path": ["bad"], "embedding": pa.nulls(1, column.type)})
    pq.write_table(bad, folder / "part-00003.parquet")
    return folder


def test_an_approximate_index_finds_what_brute_force_finds(tmp_path):
    """At least 95 % of the ten nearest among 50,000 in 300 clusters, and all near duplicates."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, 32))
    vectors = centres[rng.integers(0, 300, 50_000)] + 0.5 * rng.normal(size=(50_000, 32))
    places = rng.choice(50_000, 200, replace=False)
    near = vectors[places[:100]]
    vectors[places[100:]] = near + 0.01 * rng.normal(size=near.shape)
    index = bulk.Index(written(tmp_path / "embeddings", vectors, np.float16), approximate=True)
    assert type(index.index).__name__ == "IndexIVFFlat" and len(index) == 50_000
    queries = centres[rng.integers(0, 300, 200)] + 0.5 * rng.normal(size=(200, 32))
    unit, asked = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (vectors, queries))
    exact = np.argsort(-(asked @ unit.T), axis=1)[:, :10]
    found = index.nearest(queries, top=10)
    same = [len(set(map(str, e)) & {p for p, _ in f}) for e, f in zip(exact, found, strict=True)]
    assert sum(same) / 2000 >= 0.95
    similarities = [value for _, value in found[0]]
    assert similarities == sorted(similarities, reverse=True)
    pairs = {tuple(sorted((str(a), str(b)), key=int)) for a, b in places.reshape(2, 100).T}
    groups = index.duplicates(0.99)
    assert {(group.path, *(path for path, _ in group.copies)) for group in groups} == pairs


@pytest.mark.filterwarnings("ignore")  # warnings of the converter about its own code
def test_invalid_indexes(folder, tmp_path, command_here, monkeypatch):
    """Another network, other preprocessing, no embeddings, damaged files, or no faiss."""
    photo, index = folder / "photos" / "05.png", folder / "embeddings"
    run = ("--run", folder / "run")
    shutil.copytree(folder / "run", tmp_path / "other")
    small("cifar", seed=1).save(tmp_path / "other" / "best.keras")
    bulk.predict(trained.open_network(folder / "run"), photo, tmp_path / "labels")
    shutil.copytree(index, tmp_path / "damaged")
    part = tmp_path / "damaged" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    shutil.copytree(index, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "part-00001.parquet").unlink()
    for arguments, said in (
        ((photo, "--index", index, "--run", "other"), "are of another network than other/best.ker"),
        ((photo, "--index", index, *run, "--resize", 40), "computed with other preprocessing"),
        ((photo, "--index", "labels", *run), "the folder has 'labels', no embeddings"),
        ((photo, "--index", "other", *run), "other is not a folder of embeddings"),
        ((photo, "--index", "damaged", *run), "part-00001.parquet cannot be read"),
        ((photo, "--index", index, *run, "--runtime", "onnx"), "has no export to run with onnx"),
    ):
        done = command_here("similar", *arguments)
        assert done.returncode == 1 and said in done.stderr, done.stderr
    done = command_here("similar", photo, "--index", "unfinished", *run)
    assert done.returncode == 0 and "has 22 of 30 rows" in done.stderr
    trained.open_network(folder / "run").export("onnx", tmp_path / "m.onnx", layer="avgpool")
    done = command_here("similar", photo, "--index", index, *run, "--runtime", "m.onnx")
    assert done.returncode == 0 and "by another runtime or export" in done.stderr
    assert f"1.0000  {photo}" in done.stdout
    done = command_here("duplicates", index, "--threshold", 0)
    assert done.returncode == 1 and "more than 0 and at most 1" in done.stderr
    with pytest.raises(ValueError, match=r"\(queries, 32\)\. Received: \(2, 3\)"):
        bulk.Index(index).nearest(np.zeros((2, 3)))
    with pytest.raises(keras_resnet.data.DataError, match=r"No row of .* has an embedding"):
        bulk.Index(written(tmp_path / "nan", np.full((3, 8), np.nan)))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"faiss is not installed.*keras3-resnet\[similar\]"):
        bulk.Index(index)


@pytest.mark.slow
def test_the_demo_shows_similar_pictures(folder, run_python):
    """Those whose files exist, as the network sees them."""
    pytest.importorskip("gradio", reason="needs the demo extra")
    photo = folder / "photos" / "07.png"
    done = run_python(
        "-c",
        "import runpy, sys\nfrom pathlib import Path\nimport numpy\n"
        "demo = runpy.run_path(sys.argv[1])\n"
        "find = demo['open_index'](*sys.argv[4:])\n"
        "found = find('upload.png', Path(sys.argv[2]).read_bytes())\n"
        "assert demo['page']('run', ['a'], None, True, find)\n"
        "numpy.save(sys.argv[3], found[0][0])\n"
        "print(*(caption for _, caption in found), sep='\\n')",
        *(Path(__file__).parents[1] / "examples" / "demo.py", photo, folder / "seen.npy"),
        *(folder / "embeddings", folder / "run"),
    )
    assert done.returncode == 0, done.stderr
    captions = done.stdout.splitlines()
    assert captions[0] == f"1.000  {photo}" and len(captions) == 8
    network = trained.open_network(folder / "run")
    expected = network.preprocessing.batch({"": photo.read_bytes()}, normalise=False)[0]
    np.testing.assert_array_equal(np.load(folder / "seen.npy"), expected)
