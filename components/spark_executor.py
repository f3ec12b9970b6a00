"""`python -m components.spark_executor executor`: what an executor's pod runs, in the image of the data steps.

Spark on Kubernetes tells an executor what it is by environment variables and leaves it to the image to start Java with
them. Executors run the data image, whatever the driver's is (smoke_serve's is serve). Spark wants one release of itself
in both: that of constraints.txt, which the two images install.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"

FLAGS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}
"""Of the executor -> the variable that Spark gives the pod."""

_JAVA_OPTION = re.compile(r"SPARK_JAVA_OPT_(\d+)")


def command(environment: Mapping[str, str], jars: Path, java: str) -> list[str]:
    """The Java process that an executor is.

    Raises:
        SystemExit: Spark has not said something; nobody but Spark starts this.
    """
    needed = {*FLAGS.values(), "SPARK_EXECUTOR_MEMORY"}
    if missing := sorted(name for name in needed if not environment.get(name)):
        sys.exit(f"{', '.join(missing)} not set: expected the environment of a pod that Spark has asked for")
    options = sorted((int(match[1]), name) for name in environment if (match := _JAVA_OPTION.fullmatch(name)))
    memory = environment["SPARK_EXECUTOR_MEMORY"]
    flags = [word for flag, name in FLAGS.items() for word in (flag, environment[name])]
    return [
        java,
        *(environment[name] for _, name in options),
        f"-Xms{memory}",
        f"-Xmx{memory}",
        "-cp",
        f"{jars}/*",
        BACKEND,
        *flags,
    ]


def main() -> None:
    """Become the executor."""
    import pyspark

    home = Path(pyspark.__file__).parent
    java_home = os.environ.get("JAVA_HOME")
    java = f"{java_home}/bin/java" if java_home else shutil.which("java") or "java"
    os.environ.setdefault("SPARK_HOME", str(home))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    words = command(os.environ, home / "jars", java)
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
