"""The demo page, in a browser."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet import data, trained, training

ROOT = Path(__file__).parents[1]
MISSING = [
    *(name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None),
    *(name for name in ("chromium", "chromedriver") if shutil.which(name) is None),
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
WAIT = 60  # seconds, on a busy machine
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1000",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    drawn = data.drawn_flowers(folder / "drawn", train=8, val=2)
    recipe = training.Recipe(
        data=str(drawn), model="resnet18", image_size=32, epochs=2, batch_size=8
    )
    return training.train(recipe, folder / "run")


@pytest.fixture
def files(run, tmp_path):
    """Two drawings, and files that are not valid images."""
    drawn = run.parent / "drawn" / "val"
    for kind in ("rose", "tulip"):
        shutil.copy(drawn / kind / "000.jpg", tmp_path / f"{kind}.jpg")
    (tmp_path / "text.jpg").write_text("<b>no image</b>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "rose.jpg").read_bytes()[:700])
    (tmp_path / "large.jpg").write_bytes(bytes(21 * 2**20))
    return tmp_path


@contextlib.contextmanager
def app(path, folder, *options):
    """Starts the app in a new process; yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "examples" / "demo.py", path, "--port", port, *options]
    variables = {"PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "uploaded")}
    errors = folder / "errors.txt"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | variables,
        ) as process,
    ):
        try:
            assert f"http://127.0.0.1:{port} " in process.stdout.readline(), errors.read_text()
            yield f"http://127.0.0.1:{port}"
            assert process.poll() is None
            assert errors.read_text() == ""
        finally:
            process.terminate()


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    # An explicit path keeps Selenium from downloading a driver.
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


class Page:
    """The page in a browser."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.wait_for(lambda: self.all("#file input[type=file]"))

    def wait_for(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.browser, WAIT, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition())

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def offer(self, file):
        self.all("#file input[type=file]")[0].send_keys(str(file))

    def ask(self, file):
        """Uploads a file; returns the message."""
        self.offer(file)

        def message():
            text = self.all("#message textarea")[0].get_attribute("value")
            return text if text.startswith(file.name) else None

        return self.wait_for(message)

    def classes(self):
        """Returns the class names, best first, with the width of each bar in percent."""
        names = [name.text for name in self.all("#classes dt")]
        bars = [float(bar.get_attribute("value")) for bar in self.all("#classes meter")]
        return dict(zip(names, bars, strict=True))

    def picture_size(self, place):
        """Returns the width of a loaded picture in its file and on the screen."""
        script = "let i = document.querySelector(arguments[0]); return i && i.complete && "
        script += "i.naturalWidth && [i.naturalWidth, i.getBoundingClientRect().width]"
        return self.wait_for(lambda: self.browser.execute_script(script, f"#{place} img"))

    def requested(self):
        """Returns the URLs requested by the page."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"].get("documentURL", "").startswith("http")
        ]


def check_answer(page, file, expected):
    assert "answered in" in page.ask(file)
    classes = page.classes()
    assert list(classes) == [name for name, _ in expected]
    assert list(classes.values()) == pytest.approx([p for _, p in expected], abs=1e-4)
    assert page.all("#classes h2")[0].text == expected[0][0]
    width, shown = page.picture_size("seen")
    assert width == 32 and shown > 200


def test_a_run(run, files, browser):
    rose, tulip = files / "rose.jpg", files / "tulip.jpg"
    expected = dict(trained.Network.from_run(run).predict([rose, tulip]))
    with app(run, files, "--layer", "layer2.1") as url:
        page = Page(browser, url)
        check_answer(page, rose, expected[rose])
        width, shown = page.picture_size("heat")
        assert width == 32 and shown > 200
        for name in ("text.jpg", "empty.png", "cut.jpg"):
            assert "cannot be decoded: expected a JPEG, PNG" in page.ask(files / name)
            page.wait_for(lambda: not page.classes())
            assert not page.all("#seen img") and not page.all("#heat img")
        check_answer(page, tulip, expected[tulip])
        page.picture_size("heat")
        page.offer(files / "large.jpg")
        page.wait_for(lambda: "maximum allowed size" in page.all("body")[0].text)
        check_answer(page, rose, expected[rose])
        others = [url_ for url_ in page.requested() if not url_.startswith((url, "data:", "blob:"))]
        assert not others


@pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code
def test_an_exported_network(run, files, browser):
    rose = files / "rose.jpg"
    file = trained.open_network(run).export("onnx", files / "model.onnx")
    with app(file, files) as url:
        page = Page(browser, url)
        check_answer(page, rose, dict(trained.Network.from_run(run).predict([rose]))[rose])
        assert "Grad-CAM needs the gradients of the Keras model" in page.all("body")[0].text
        assert not page.all("#heat")
        assert "cannot be decoded" in page.ask(files / "cut.jpg")


def test_errors_are_one_message(run, run_python):
    for path, *options in (("missing.onnx",), (run, "--layer", "layer9")):
        done = run_python(ROOT / "examples" / "demo.py", path, *options)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
