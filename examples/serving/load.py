"""Load test of a server with several clients; prints the throughput and the latency.

python load.py rose.jpg tulip.jpg --url http://localhost:8501 --requests 200 --clients 8
"""

import concurrent.futures
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import requests
import typer
from rest_client import address, ask, explained


def load(where, images, number, clients):
    """Sends `number` requests from concurrent clients, each with one of the images in turn.

    Returns:
        The predictions in order, and the seconds of each request.
    """

    def one(image):
        start = time.perf_counter()
        (answer,) = ask(where, [image], session)
        return answer, time.perf_counter() - start

    adapter = requests.adapters.HTTPAdapter(pool_maxsize=clients)
    turns = list(itertools.islice(itertools.cycle(images), number))
    with requests.Session() as session, concurrent.futures.ThreadPoolExecutor(clients) as pool:
        session.mount("http://", adapter)
        return tuple(zip(*pool.map(one, turns), strict=True))


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    url: Annotated[str, typer.Option(help="Address of the server.")] = "http://localhost:8501",
    model: Annotated[str, typer.Option(help="Name of the model on the server.")] = "flowers",
    number: Annotated[int, typer.Option("--requests", help="Number of requests.", min=1)] = 200,
    clients: Annotated[int, typer.Option(help="Number of concurrent requests.", min=1)] = 8,
):
    """Print images per second, and the median and the 95th percentile of the latency."""
    try:
        contents = [image.read_bytes() for image in images]
        start = time.perf_counter()
        _, seconds = load(address(url, model), contents, number, clients)
    except (ValueError, OSError) as error:
        sys.exit(explained(error))
    total = time.perf_counter() - start
    slow = sorted(seconds)[int(0.95 * (len(seconds) - 1))]
    print(
        f"{number} requests by {clients} clients: {number / total:.1f} images/s, median "
        f"{statistics.median(seconds) * 1000:.0f} ms, 95 % within {slow * 1000:.0f} ms"
    )


if __name__ == "__main__":
    typer.run(main)
