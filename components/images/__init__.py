"""Names of the images the steps run in; the Dockerfiles lie beside this file.

A release sets the three variables to images by digest before it compiles the pipeline. On one machine the names are
never pulled: kfp.local runs the same functions in subprocesses of this very environment, or in containers of images
that were built here (pipelines/docker_runner.py).
"""

from __future__ import annotations

import os

from goalrank import __version__

DATA_IMAGE = os.environ.get("GOALRANK_DATA_IMAGE", f"goalrank/data:{__version__}")
TRAIN_IMAGE = os.environ.get("GOALRANK_TRAIN_IMAGE", f"goalrank/train:{__version__}")
SERVING_IMAGE = os.environ.get("GOALRANK_SERVING_IMAGE", f"goalrank/serve:{__version__}")
