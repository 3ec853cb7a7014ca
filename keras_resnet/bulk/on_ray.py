"""A job on a Ray cluster: each actor holds the network, and writes a part at a time."""

import logging
import os

VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND")  # they decide about the last digits


class Worker:
    """An actor's side: computes the part of each row that it gets."""

    def __init__(self, job, folder):
        import ray

        os.chdir(folder)  # paths may be relative to it
        self.job = ray.get(job)

    def __call__(self, row):
        """Writes the part, and tells how many rows it has."""
        number = row["part"]
        self.job.run([number])
        start, stop = self.job.parts.bounds(number)
        return {"rows": stop - start}


def run(job, numbers, address, workers):
    """Computes parts on a cluster; yields the number of rows of each that was written.

    Ray starts a new actor for one that dies, and gives it the same part.

    Args:
        job: The `Job`.
        numbers: Of the parts.
        address: Of the cluster; None for a new one on this machine.
        workers: How many actors; None for one a node.
    """
    import ray
    import ray.data

    # Nothing is sent to anyone unless asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    ray.init(
        address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=None if address else False,
        runtime_env={"env_vars": variables},
    )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        workers = workers or len(ray.nodes())
        cores, gpus = (ray.cluster_resources().get(kind, 0) / workers for kind in ("CPU", "GPU"))
        done = ray.data.from_items(
            [{"part": number} for number in numbers], override_num_blocks=len(numbers)
        ).map(
            Worker,  # type: ignore[arg-type]  # each actor makes an instance of it
            fn_constructor_args=(ray.put(job), os.getcwd()),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=int(cores) or cores,  # parts of one, or whole ones
            num_gpus=min(int(gpus) or gpus, 1),
        )
        for row in done.iter_rows():
            yield row["rows"]
    finally:
        ray.shutdown()
