"""A web page that shows a trained network's predictions for images, with Grad-CAM.

    python examples/demo.py runs/flowers

It also supports exported networks: the version folder of a SavedModel, a .onnx, .tflite or .xml
file. With --index embeddings, a folder that `keras-resnet embed` wrote with the run's network, it
shows the most similar images of that folder. Needs the demo extra, and the similar extra for an
index: pip install "keras3-resnet[demo,similar]".

On 2 CPU cores, it starts in 12 seconds and takes 0.05 seconds for an image of 64 pixels.
"""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, quiet

# Read when Gradio is imported.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
with quiet():
    import gradio
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_resnet import bulk, trained, visualize
    from keras_resnet.export import record, verification

TOP, SIMILAR = 5, 8
KEPT = 600  # seconds after which uploaded files are removed
GRAD_CAM = "Where it sees the first class (Grad-CAM)"
NO_GRAD_CAM = (
    "Grad-CAM needs the gradients of the Keras model, which an exported network does not have. "
    "Start with the run folder to see it."
)
LAUNCH = {
    "share": False,
    "ssr_mode": False,
    "prevent_thread_lock": True,
    "quiet": True,
    "footer_links": [],
    "max_file_size": "20mb",
    "css": "#seen img, #heat img { width: 100%; height: 100%; object-fit: contain }",
}


def open_run(folder, layer=None):
    """Returns the class names of a run, and a function that runs its network on an image file.

    The function returns the pixels, the probabilities, and a function from a class to its heat map.
    """
    network = trained.open_network(folder)

    def ask(name, content):
        pixels = network.preprocessing.batch({name: content}, normalise=False)
        inputs = network.preprocessing.normalise(pixels).numpy()
        return (
            pixels[0],
            network.model.predict_on_batch(inputs)[0],
            lambda index: visualize.grad_cam(network.model, inputs[0], index, layer=layer),
        )

    return network.class_names, ask


def open_export(artefact):
    """The same as `open_run` for an exported network in its own runtime, without heat maps."""
    said = record.read(artefact)
    preprocessing, inside = record.preprocessing_of(said), said["preprocessing_inside"]
    if preprocessing is None or said["class_names"] is None:
        raise ValueError(f"{artefact} was exported without its preprocessing, or has no classes.")
    answer = verification.opened(artefact)

    def ask(name, content):
        pixels = preprocessing.batch({name: content}, normalise=False)
        inputs = pixels if inside != "none" else preprocessing.normalise(pixels).numpy()
        answers = answer([content] if inside == "all" else inputs)
        verification.check_names(answers, said["class_names"])
        if "logits" in answers:
            answers["probabilities"] = keras.ops.softmax(answers["logits"]).numpy()
        return pixels[0], answers["probabilities"][0], None

    return said["class_names"], ask


def open_index(folder, run):
    """A function from an image file to [(pixels, caption), ...] of the most similar pictures."""
    network, index = trained.open_network(run), bulk.Index(folder)
    embed = index.embedder(network)

    def find(name, content):
        found = []
        for path, similarity in index.nearest(embed(name, content), top=SIMILAR)[0]:
            # Those that are files still; others are in shards, or elsewhere.
            with contextlib.suppress(ValueError, OSError):
                contents = {path: Path(path).read_bytes()}
                pixels = network.preprocessing.batch(contents, normalise=False)[0]
                found.append((pixels, f"{similarity:.3f}  {path}"))
        return found

    return find


def look(class_names, ask, name, content):
    """Returns the classes, the pixels, the heat map and the message to show for an image file."""
    began = time.perf_counter()
    pixels, probabilities, grad_cam = ask(name, content)
    message = f"{name}: answered in {(time.perf_counter() - began) * 1000:.0f} ms"
    best = np.argsort(-probabilities)[:TOP]
    classes = {class_names[index]: float(probabilities[index]) for index in best}
    return classes, pixels, grad_cam and visualize.overlay(pixels, grad_cam(best[0])), message


def page(title, class_names, ask, has_grad_cam, find=None):
    """Builds the page: an upload area, the network's predictions, and similar images by `find`."""

    def answer(file):
        free = None  # the upload area, which is cleared for the next file
        try:
            name, content = Path(file).name, Path(file).read_bytes()
            return free, *look(class_names, ask, name, content), find and find(name, content)
        except (ValueError, OSError) as error:
            return free, None, None, None, str(error), None

    picture = {"show_label": False, "format": "png", "height": 320, "buttons": []}
    with gradio.Blocks(title="keras_resnet", delete_cache=(KEPT, KEPT)) as blocks:
        gradio.Markdown(f"## Ask `{title}`")
        with gradio.Row():
            with gradio.Column():
                # Not gradio.Image, which decodes files itself, with other pixels and messages.
                file = gradio.File(label="Picture", file_types=["image"], elem_id="file")
                message = gradio.Textbox(label="Message", lines=2, elem_id="message")
            classes = gradio.Label(label="Classes", num_top_classes=TOP, elem_id="classes")
        with gradio.Row():
            with gradio.Column():
                gradio.Markdown("What the network sees")
                seen = gradio.Image(elem_id="seen", **picture)
            with gradio.Column():
                gradio.Markdown(GRAD_CAM if has_grad_cam else NO_GRAD_CAM)
                heat = gradio.Image(elem_id="heat", visible=has_grad_cam, **picture)
        similar = gradio.Gallery(
            label="Similar pictures", columns=4, visible=find is not None, elem_id="similar"
        )
        shown = [file, classes, seen, heat, message, similar]
        file.upload(answer, file, shown, api_visibility="private")
    return blocks


def main(
    path: Annotated[Path, typer.Argument(help="Run folder, or an exported network.")],
    layer: Annotated[
        str | None, typer.Option(help="Layer for Grad-CAM, layer2.1 for example; for runs only.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="Folder of embeddings, to show similar pictures; for runs only."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
):
    """Serve a web page for uploading images."""
    exported = path.suffix in (".onnx", ".tflite", ".xml") or record.place(path).is_file()
    try:
        class_names, ask = open_export(path) if exported else open_run(path, layer)
        # The first prediction takes longer, and shows whether the network works.
        black = tf.io.encode_jpeg(np.zeros((64, 64, 3), np.uint8)).numpy()
        look(class_names, ask, "black.jpg", black)
        if index and exported:
            raise ValueError("--index needs a run folder, since an export has no embeddings.")
        find = index and open_index(index, path)
        blocks = page(path, class_names, ask, not exported, find)
        blocks.launch(server_name=host, server_port=port, **LAUNCH)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"Error: {in_words(error)}")
    print(f"Open http://{host}:{port} in a browser; end with Ctrl+C.", flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    typer.run(main)
