"""Forks a process that has imported the package, once for each program to run.

Requests arrive as lines of JSON; the exit status of each program is printed. Nothing is computed
before the fork, so TensorFlow is in the state that it has after `import keras_resnet`.
"""

import json
import os
import sys
import traceback

import keras  # noqa: F401 (its imports are not counted as the package's)

before = set(sys.modules)
import keras_resnet  # noqa: E402, F401

IMPORTED = sorted({name.split(".")[0] for name in set(sys.modules) - before})


def run(order):
    """Runs the program in the child process; never returns."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(order["folder"])
    os.environ.update(order["variables"])
    sys.argv = ["-c", *order["arguments"]]
    status = 0
    try:
        names = {"__name__": "__main__", "IMPORTED": IMPORTED}
        exec(compile(order["program"], "<program>", "exec"), names)  # noqa: S102 (our own program)
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
