"""Which images run: ours by digest where users are, others by exact version; and the tool that writes the digests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from components import images as pipeline_images
from goalrank.errors import EXIT_USAGE, UsageError
from scripts import release
from tests.cluster.rendered import K8S, ROOT, Object, pods, render

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
EXACT = re.compile(r"v?\d+\.\d+(?:\.\d+)?(?:-[a-z]+)?")
"""A whole version, such as 17.6-bookworm or v3.17.2-full: PostgreSQL counts two numbers, others three."""
BY_DIGEST = ("staging", "prod")


def used(objects: list[Object]) -> set[str]:
    return {container["image"] for pod in pods(objects) for container in pod.containers}


def split(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest; what is not there is empty."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    tag = last.partition(":")[2]
    return name.removesuffix(f":{tag}") if tag else name, tag, digest


def ours(objects: list[Object]) -> set[str]:
    """Under the names of the tree, or those that a release gave them."""
    return {image for image in used(objects) if split(image)[0] in release.IMAGES.keys() | released_names()}


def released_names() -> set[str]:
    files = (K8S / "overlays").glob("*/images/kustomization.yaml")
    return {one["newName"] for file in files for one in yaml.safe_load(file.read_text())["images"] if "newName" in one}


def test_ours_by_digest_where_users_are(objects: list[Object], environment: str) -> None:
    assert ours(objects)
    for image in ours(objects):
        _, tag, digest = split(image)
        if environment in BY_DIGEST:
            assert not tag and DIGEST.fullmatch(digest), image
        else:
            assert tag and tag != "latest", image


def test_others_by_exact_version(objects: list[Object]) -> None:
    for image in used(objects) - ours(objects):
        repository, tag, _ = split(image)
        assert EXACT.fullmatch(tag), image
        assert "." in repository.partition("/")[0], f"{image} does not say which registry it comes from"


def test_mlflow_is_the_clients_own_version(objects: list[Object]) -> None:
    (pinned,) = re.findall(r"^mlflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (tag,) = (split(image)[1] for image in used(objects) if split(image)[0].endswith("/mlflow"))
    assert tag.removeprefix("v").partition("-")[0] == pinned


@pytest.mark.parametrize("overlay", BY_DIGEST)
def test_what_stands_there_is_what_the_tool_writes(overlay: str) -> None:
    """Released or not: names all of ours, each by a digest."""
    file = K8S / "overlays" / overlay / "images" / "kustomization.yaml"
    found = yaml.safe_load(file.read_text(encoding="utf-8"))["images"]
    images = [release.Image(one["name"], one.get("newName", one["name"]), one["digest"]) for one in found]
    assert [image.name for image in images] == list(release.IMAGES)
    assert all(DIGEST.fullmatch(image.digest) for image in images)
    assert file.read_text(encoding="utf-8") == release.component(images)


def test_the_variables_are_those_the_pipeline_reads() -> None:
    source = Path(pipeline_images.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"GOALRANK_[A-Z]+_IMAGE", source)) == set(release.IMAGES.values())


def digests(letter: str = "a") -> list[str]:
    return [f"{name}=sha256:{letter * 64}" for name in release.IMAGES]


def test_a_release_reaches_the_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    monkeypatch.setattr(release, "OVERLAYS", tmp_path / "k8s" / "overlays")
    given = digests()
    given[1] = f"goalrank/serve=registry.example.org:5000/ml/serve@sha256:{'b' * 64}"
    assert release.main(given) == 0
    assert f"GOALRANK_SERVING_IMAGE=registry.example.org:5000/ml/serve@sha256:{'b' * 64}\n" in capsys.readouterr().out
    images = used(render(tmp_path / "k8s" / "overlays" / "prod"))
    assert f"registry.example.org:5000/ml/serve@sha256:{'b' * 64}" in images
    assert not any(release.UNRELEASED in image for image in images)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (digests()[:2], "no digest found for goalrank/train"),
        ([*digests(), digests()[0]], "image 'goalrank/data' is given twice"),
        ([*digests()[:2], f"goalrank/tain=sha256:{'a' * 64}"], "image 'goalrank/tain' is none of ours"),
        ([*digests()[:2], f"goalrank/train=sha256:{'a' * 63}"], "found for goalrank/train, expected the digest"),
        ([*digests()[:2], "goalrank/train=latest"], "found for goalrank/train, expected the digest"),
        ([*digests()[:2], f"goalrank/train=x:1@sha256:{'A' * 64}"], "found for goalrank/train, expected the digest"),
        ([*digests()[:2], f"goalrank/train={release.UNRELEASED}"], "found for goalrank/train, expected the digest"),
    ],
)
def test_what_is_no_release_is_refused(given: list[str], reason: str, capsys) -> None:
    before = (K8S / "overlays" / "prod" / "images" / "kustomization.yaml").read_text()
    with pytest.raises(UsageError, match=re.escape(reason)):
        release.parse(given)
    assert release.main(given) == EXIT_USAGE and reason in capsys.readouterr().err
    assert (K8S / "overlays" / "prod" / "images" / "kustomization.yaml").read_text() == before


def test_dev_takes_no_digests() -> None:
    with pytest.raises(UsageError, match="overlay 'dev' takes no digests, expected one of prod, staging"):
        release.write(release.parse(digests()), "dev")
