"""Compile the pipelines to pipelines/compiled/*.yaml: `python -m pipelines.compile`."""

from __future__ import annotations

from pathlib import Path

COMPILED = Path(__file__).parent / "compiled"


def compile_nightly(target: Path) -> None:
    """Write the night as the YAML a cluster is given."""
    from kfp import compiler

    from pipelines.nightly import nightly

    compiler.Compiler().compile(nightly, str(target))


if __name__ == "__main__":
    COMPILED.mkdir(exist_ok=True)
    compile_nightly(COMPILED / "nightly.yaml")
