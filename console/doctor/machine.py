"""Java, GPU, disk, memory, and Docker where the steps run in containers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from console.doctor.findings import OK, PROBLEM, WARNING, Check, Finding, problem
from console.settings import Settings
from goalrank.errors import UsageError

GROUP = "machine"
JAVA = 17
"""Spark 4 needs this Java or a newer one."""
GIB = 2**30
DISK, FULL = 3 * GIB, GIB // 2
MEMORY, TIGHT = 6 * GIB, 2 * GIB
"""README's needs; a night of preset small peaks at 1.7 GB."""
ASK_SECONDS = 10.0


def java(settings: Settings) -> list[Finding]:
    """The Java that Spark would start: JAVA_HOME's, else the one on the path."""
    mend = f"install Java {JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    home = os.environ.get("JAVA_HOME", "")
    command = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if home and not Path(command or "").is_file():
        return [Finding(GROUP, "Java", PROBLEM, f"JAVA_HOME={home} holds no bin/java", f"unset JAVA_HOME, or {mend}")]
    if command is None:
        return [Finding(GROUP, "Java", PROBLEM, "none found", mend)]
    try:
        done = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding(GROUP, "Java", PROBLEM, f"{command} does not start ({type(error).__name__})", mend)]
    version = re.search(r'version "(\d+)(?:\.(\d+))?[^"]*"', done.stderr + done.stdout)
    if version is None:
        return [Finding(GROUP, "Java", PROBLEM, f"{command} does not say its version", mend)]
    major = int(version[2] or 0) if version[1] == "1" else int(version[1])
    where = f"{version[0].split()[1].strip(chr(34))}, {command}{', from JAVA_HOME' if home else ''}"
    return [Finding(GROUP, "Java", OK if major >= JAVA else PROBLEM, where, "" if major >= JAVA else mend)]


def gpu(settings: Settings) -> list[Finding]:
    """NVIDIA's, and whether torch was built for it; training runs on a CPU just as well, more slowly."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return [Finding(GROUP, "GPU", OK, "none; training runs on the CPU")]
    asked = [command, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [
            Finding(GROUP, "GPU", WARNING, f"nvidia-smi does not answer ({type(error).__name__})", "see the driver")
        ]
    cards = [" free of".join(line.rsplit(",", 1)) for line in done.stdout.strip().splitlines()]
    if done.returncode or not cards:
        said = (done.stderr or done.stdout).strip().splitlines()[:1]
        return [Finding(GROUP, "GPU", WARNING, f"nvidia-smi: {''.join(said) or 'no card'}", "see the driver")]
    try:
        built_for_cpu = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        built_for_cpu = False
    mend = "install torch's CUDA build, or leave it: training runs on the CPU" if built_for_cpu else ""
    found = "; ".join(cards) + (", but torch is a CPU build" if built_for_cpu else "")
    return [Finding(GROUP, "GPU", WARNING if built_for_cpu else OK, found, mend)]


def disk(settings: Settings) -> list[Finding]:
    """Room where the workspace is, or would be."""
    place = settings.workspace
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    status = OK if free >= DISK else WARNING if free >= FULL else PROBLEM
    mend = "" if status == OK else "free some space; `goalrank clean --dry-run` says what nothing needs any more"
    return [Finding(GROUP, "disk", status, f"{free / GIB:.1f} GiB free at {place}", mend)]


def memory(settings: Settings) -> list[Finding]:
    """Memory that a night could have now."""
    import psutil

    found = psutil.virtual_memory()
    status = OK if found.total >= MEMORY * 0.9 and found.available >= TIGHT else WARNING
    mend = "" if status == OK else "end what else runs, or use preset tiny: a night may be killed for memory"
    said = f"{found.available / GIB:.1f} of {found.total / GIB:.1f} GiB free, {os.cpu_count()} processors"
    return [Finding(GROUP, "memory", status, said, mend)]


def containers(settings: Settings) -> list[Finding]:
    """Docker and the steps' images, where GOALRANK_RUNNER says that the steps run in containers."""
    if settings.runner != "docker":
        return []
    from pipelines.docker_runner import require_images

    try:
        require_images()
    except UsageError as error:
        return [problem(GROUP, "containers", error)]
    return [Finding(GROUP, "containers", OK, "Docker answers, the three images are here")]


CHECKS = tuple(Check(GROUP, ask.__name__, ask) for ask in (java, gpu, disk, memory, containers))
