"""Put a release's image digests where they count: `make release IMAGES="goalrank/serve=sha256:... ..."`.

Writes k8s/overlays/OVERLAY/images/kustomization.yaml, all of it and atomically, and prints the variables from which
the pipeline takes its images (components/images), so that servers and nights run the same ones:

    eval "$(make -s release IMAGES=...)"

A digest may carry the repository it was pushed to: goalrank/serve=registry.example.org/ml/serve@sha256:...
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from goalrank.errors import EXIT_USAGE, UsageError

OVERLAYS = Path(__file__).resolve().parents[1] / "k8s" / "overlays"

IMAGES = {
    "goalrank/data": "GOALRANK_DATA_IMAGE",
    "goalrank/serve": "GOALRANK_SERVING_IMAGE",
    "goalrank/train": "GOALRANK_TRAIN_IMAGE",
}
"""Our images as the manifests name them, and the variable by which components/images learns of each."""

UNRELEASED = f"sha256:{'0' * 64}"
"""Stands in an overlay until its first release: well-formed, and no image has it."""

_REFERENCE = re.compile(r"(?:(?P<repository>[a-z0-9][a-z0-9.:/_-]*)@)?(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Image:
    """One of ours, by digest; `repository` is where it was pushed to."""

    name: str
    repository: str
    digest: str

    @property
    def reference(self) -> str:
        """What a container runtime pulls."""
        return f"{self.repository}@{self.digest}"


def parse(texts: list[str]) -> list[Image]:
    """NAME=[REPOSITORY@]sha256:..., one for each of IMAGES.

    Raises:
        UsageError: one is missing, unknown, given twice, or no digest.
    """
    found: dict[str, Image] = {}
    for text in texts:
        name, _, reference = text.partition("=")
        match = _REFERENCE.fullmatch(reference)
        if name not in IMAGES or name in found:
            why = "is given twice" if name in found else f"is none of ours ({', '.join(IMAGES)})"
            raise UsageError(f"image {name!r} {why}; expected each once as NAME=sha256:...")
        if match is None or match["digest"] == UNRELEASED:
            raise UsageError(f"{reference!r} found for {name}, expected the digest of a pushed image, sha256:<64 hex>")
        found[name] = Image(name, match["repository"] or name, match["digest"])
    if missing := sorted(IMAGES.keys() - found.keys()):
        raise UsageError(f"no digest found for {', '.join(missing)}; a release names all of its images")
    return [found[name] for name in IMAGES]


def component(images: list[Image]) -> str:
    """The kustomization that sets them."""
    lines = [
        "# Written by `make release`, not by hand.",
        "apiVersion: kustomize.config.k8s.io/v1alpha1",
        "kind: Component",
        "images:",
    ]
    for image in images:
        lines.append(f"  - name: {image.name}")
        if image.repository != image.name:
            lines.append(f"    newName: {image.repository}")
        lines.append(f"    digest: {image.digest}")
    return "\n".join(lines) + "\n"


def write(images: list[Image], overlay: str) -> Path:
    """Set an overlay's images; the file written.

    Raises:
        UsageError: the overlay takes no digests, or there is none of that name.
    """
    target = OVERLAYS / overlay / "images" / "kustomization.yaml"
    if not target.is_file():
        known = sorted(path.parts[-3] for path in OVERLAYS.glob("*/images/kustomization.yaml"))
        raise UsageError(f"overlay {overlay!r} takes no digests, expected one of {', '.join(known)}")
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_text(component(images), encoding="utf-8")
    os.replace(aside, target)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Set an overlay's images by digest.")
    parser.add_argument("--overlay", default="prod", help="staging or prod  [default: prod]")
    parser.add_argument("images", nargs="*", metavar="NAME=[REPOSITORY@]sha256:...", help=", ".join(IMAGES))
    given = parser.parse_args(arguments)
    try:
        images = parse(given.images)
        target = write(images, given.overlay)
    except UsageError as error:
        print(f"usage: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{target}: {len(images)} images", file=sys.stderr)
    for image in images:
        print(f"export {IMAGES[image.name]}={shlex.quote(image.reference)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
