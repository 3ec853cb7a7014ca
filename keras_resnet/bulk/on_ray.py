"""A job on a Ray cluster: each actor holds the network, and writes a part at a time."""

import logging
import os

VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND")  # they affect the last digits


class Worker:
    """An actor, which computes the part of each row that it gets."""

    def __init__(self, job, folder):
        import ray

        os.chdir(folder)  # for relative paths
        self.job = ray.get(job)

    def __call__(self, row):
        """Computes and writes a part; returns its number of rows."""
        number = row["part"]
        self.job.run([number])
        start, stop = self.job.parts.bounds(number)
        return {"rows": stop - start}


def run(job, numbers, address, workers):
    """Computes parts on a cluster; yields the number of rows of each written part.

    If an actor dies, Ray starts another one and computes its part again.

    Args:
        job: The `Job`.
        numbers: Indices of the parts.
        address: Address of the cluster; None for a new one on this machine.
        workers: Number of actors; None for one per node.
    """
    import ray
    import ray.data

    # No usage statistics, unless the user enables them.
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
            Worker,  # type: ignore[arg-type]  # instantiated by each actor
            fn_constructor_args=(ray.put(job), os.getcwd()),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=int(cores) or cores,  # fractions below 1, or integers
            num_gpus=min(int(gpus) or gpus, 1),
        )
        for row in done.iter_rows():
            yield row["rows"]
    finally:
        ray.shutdown()
