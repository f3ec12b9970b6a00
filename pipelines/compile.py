"""Compile the pipelines to pipelines/compiled/*.yaml: `python -m pipelines.compile`."""

from __future__ import annotations

from pathlib import Path

COMPILED = Path(__file__).parent / "compiled"


def compile_nightly(target: Path) -> None:
    """Write the night as it runs on one machine, for whoever reads it; a cluster is given pipelines/cluster.py's."""
    from kfp import compiler

    from pipelines.nightly import nightly

    compiler.Compiler().compile(nightly, str(target))


if __name__ == "__main__":
    from pipelines.cluster import compile_cluster

    COMPILED.mkdir(exist_ok=True)
    compile_nightly(COMPILED / "nightly.yaml")
    compile_cluster(COMPILED / "nightly_cluster.yaml")
