"""One script for each claim: `python -m benchmarks.NAME [--quick] [--json FILE]`; committed figures in results/."""
