"""Registration in a real MLflow: lineage, one version for the same night and weights, safetensors only."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from components import registry
from components.register_model.figures import CURVE_POINTS, metrics_of, not_finite
from components.register_model.main import DEFAULT_OBJECTIVE, Trained, _configuration, _lineage, run
from goalrank import schema
from goalrank.checkpoint import load_model
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.objective import ObjectiveConfig
from tests.components.untrained_models import NightInputs, random_ranker, random_reward

LENGTH = schema.LIST_LENGTH
PLAIN = {"preset": "tiny", "seed": "0", "objective": DEFAULT_OBJECTIVE}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    inputs = NightInputs(tmp_path_factory.mktemp("night"), requests=120)
    inputs.save("ranker", random_ranker(5), "ranker")
    inputs.save("other_ranker", random_ranker(6), "ranker")
    return inputs


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="module")
def registered(inputs, tracking_uri):
    """The first registration's artifact."""
    run(**inputs.registration_arguments("ranker", tracking_uri))
    return registry.read_registration(inputs.folder / "registration-ranker")


@pytest.fixture(scope="module")
def client(registered, tracking_uri):
    return registry.connect(tracking_uri)


def stored(tracking_uri) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///")).parent


# ------------------------------------------------------------------------------------------------------- registration


def test_both_models_are_challengers_with_their_lineage(inputs, registered, client):
    for field, name in (("ranker", registry.RANKER), ("reward", registry.REWARD)):
        version = registry.by_alias(client, name, registry.CHALLENGER)
        assert registry.identity(version) == registry.registered_identity(registered, field)
        tags = registry.version_tags(client, name, version.version)
        assert tags["run"] == registered["run_id"]
        assert tags["snapshot_id"] == inputs.snapshot_id
        assert (tags["commit"], tags["preset"], tags["seed"]) == ("c0ffee", "tiny", "0")
        assert tags["objective"] == DEFAULT_OBJECTIVE
        days = inputs.data.train_days
        assert (tags["data_window"], tags["trained_until"]) == (f"{days[0]}..{days[-1]}", days[-1])
        assert len(tags["configuration"]) == 64
        assert tags[registry.FEATURE_SET] == schema.feature_set()
    assert registry.champion(client) is None


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (ObjectiveConfig(temperature=0.5, supervised_weight=1.0).to_dict(), "temperature=0.5 supervised_weight=1.0"),
        (ObjectiveConfig(loss="dpo", preference_beta=0.01).to_dict(), "loss=dpo preference_beta=0.01"),
        ({**ObjectiveConfig().to_dict(), "of_another_release": "every"}, "of_another_release=every"),
        (None, DEFAULT_OBJECTIVE),
    ],
)
def test_lineage_says_what_the_ranker_learnt_by(inputs, objective, said):
    card = json.loads((inputs.folder / "ranker" / "model.json").read_text())
    card["created_by"]["objective"] = objective
    ranker = Trained(registry.RANKER, inputs.folder / "ranker", card)
    tags = _lineage(ranker, inputs.snapshot_id, inputs.data.date, "c0ffee", "tiny", 0)
    assert tags["objective"] == said
    reward = replace(ranker, name=registry.REWARD)
    plain, found = ([_configuration(model, one) for model in (ranker, reward)] for one in (PLAIN, tags))
    assert (found[0] == plain[0]) == (said == DEFAULT_OBJECTIVE) and found[1] == plain[1]


def test_the_run_holds_parameters_curves_and_the_judge(registered, client):
    tracked = client.get_run(registered["run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["ranker.width"] == "16"
    assert tracked.data.params["objective"] == DEFAULT_OBJECTIVE
    assert tracked.data.metrics["groups.statistics.reward_std"] == 0.25
    assert tracked.data.metrics["reward.held_out_auc"] == 0.6
    curve = client.get_metric_history(registered["run_id"], "ranker.curves.loss")
    assert [(point.step, point.value) for point in curve] == [(step, 1 / (1 + step)) for step in range(5)]
    judge = {file.path for file in client.list_artifacts(registered["run_id"], "judge_model")}
    assert judge == {"judge_model/model.json", "judge_model/weights.safetensors"}


def test_nothing_stored_is_a_pickle_and_it_lies_beside_the_database(registered, client, tracking_uri):
    files = [path for path in stored(tracking_uri).rglob("*") if path.is_file()]
    assert any(path.name == "weights.safetensors" for path in files)
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    assert client.get_run(registered["run_id"]).info.artifact_uri.startswith(stored(tracking_uri).as_uri())


def test_the_same_night_and_weights_make_no_second_version(inputs, registered, client, tracking_uri):
    again = inputs.registration_arguments("ranker", tracking_uri) | {
        "registration": str(inputs.folder / "registration-again"),
        "run_uri": str(inputs.folder / "again"),
    }
    run(**again)
    assert registry.read_registration(again["registration"]) == registered
    assert len(client.search_model_versions(f"name = '{registry.RANKER}'")) == 1
    curve = client.get_metric_history(registered["run_id"], "ranker.curves.loss")
    assert len(curve) == 5


def test_other_weights_of_the_same_night_are_another_version(inputs, registered, client, tracking_uri):
    run(**inputs.registration_arguments("other_ranker", tracking_uri))
    other = registry.read_registration(inputs.folder / "registration-other_ranker")
    assert int(other["ranker"]["version"]) > int(registered["ranker"]["version"])
    assert other["run_id"] != registered["run_id"]
    challenger = registry.by_alias(client, registry.RANKER, registry.CHALLENGER)
    assert str(challenger.version) == other["ranker"]["version"]


# ----------------------------------------------------------------------------------------------------------- refusals


def _rewrite(folder: Path, change) -> None:
    """Change a model's weights and make its card agree, as a buggy trainer would."""
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")
    card = json.loads((folder / "model.json").read_text())
    card["weights_sha256"] = registry.file_sha256(folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(card))


def _versions(client) -> int:
    return len(client.search_model_versions(f"name = '{registry.RANKER}'"))


@pytest.mark.parametrize("model", ["ranker", "reward_model", "judge_model"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(tmp_path, inputs, client, tracking_uri, model, value):
    shutil.copytree(inputs.folder / model, tmp_path / model)
    spoiled = []

    def spoil(weights):
        spoiled.append(next(name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.dim()))
        weights[spoiled[0]].view(-1)[0] = value

    _rewrite(tmp_path / model, spoil)
    before = _versions(client)
    arguments = inputs.registration_arguments("ranker", tracking_uri) | {model: str(tmp_path / model)}
    with pytest.raises(ModelRefused, match="not finite") as refusal:
        run(**arguments | {"run_uri": str(tmp_path / "run")})
    assert spoiled[0] in str(refusal.value)
    assert _versions(client) == before
    outcome = json.loads((tmp_path / "run/outcomes/register_model.json").read_text())
    assert (outcome["kind"], outcome["exit_code"]) == ("model_refused", 4)


def test_a_metric_that_is_not_finite_is_refused(tmp_path, inputs, tracking_uri):
    shutil.copytree(inputs.folder / "ranker", tmp_path / "ranker")
    card = json.loads((tmp_path / "ranker/model.json").read_text())
    card["metrics"]["curves"]["loss"][3][1] = float("nan")
    (tmp_path / "ranker/model.json").write_text(json.dumps(card))
    arguments = inputs.registration_arguments("ranker", tracking_uri) | {"ranker": str(tmp_path / "ranker")}
    with pytest.raises(ModelRefused, match=r"goalrank-ranker\.metrics\.curves\.loss\[3\]"):
        run(**arguments | {"run_uri": str(tmp_path / "run")})


def test_a_flipped_byte_is_refused(tmp_path, inputs, tracking_uri):
    shutil.copytree(inputs.folder / "ranker", tmp_path / "ranker")
    _flip(tmp_path / "ranker" / "weights.safetensors")
    arguments = inputs.registration_arguments("ranker", tracking_uri) | {"ranker": str(tmp_path / "ranker")}
    with pytest.raises(CheckpointDamaged, match="SHA-256"):
        run(**arguments | {"run_uri": str(tmp_path / "run")})


@pytest.mark.parametrize("field", ["snapshot_id", "date"])
def test_a_training_set_of_another_night_is_refused(tmp_path, inputs, tracking_uri, field):
    (tmp_path / "training_set").mkdir()
    card = {"snapshot_id": inputs.snapshot_id, "date": inputs.date} | {field: "another"}
    (tmp_path / "training_set/training_set.json").write_text(json.dumps(card))
    arguments = inputs.registration_arguments("ranker", tracking_uri)
    with pytest.raises(ModelRefused, match="training set is of"):
        run(**arguments | {"training_set": str(tmp_path / "training_set"), "run_uri": str(tmp_path / "run")})


def test_a_ranker_of_another_snapshot_is_refused(tmp_path, inputs, tracking_uri):
    """Left in the run's folder by an earlier try of the night."""
    shutil.copytree(inputs.folder / "ranker", tmp_path / "ranker")
    card = json.loads((tmp_path / "ranker/model.json").read_text())
    card["created_by"]["snapshot_id"] = "another"
    (tmp_path / "ranker/model.json").write_text(json.dumps(card))
    arguments = inputs.registration_arguments("ranker", tracking_uri) | {"ranker": str(tmp_path / "ranker")}
    with pytest.raises(ModelRefused, match="trained on snapshot another, expected"):
        run(**arguments | {"run_uri": str(tmp_path / "run")})


# ------------------------------------------------------------------------------------------------------------ loading


def _flip(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def _requests(inputs, indices) -> pd.DataFrame:
    """Requests of the training set as rows of the pyfunc's input."""
    folder = inputs.folder / "training_set"
    examples = pq.read_table(folder / "examples.parquet").take(indices).to_pylist()
    users = pq.read_table(folder / "users.parquet").drop(["user_id", "as_of"]).to_pylist()
    items = pq.read_table(folder / "items.parquet").drop(["as_of"]).to_pylist()
    return pd.DataFrame(
        [
            {
                "user": users[row["user_row"]],
                "candidates": [
                    {**items[item], "score": score}
                    for item, score in zip(row["candidate_rows"], row["candidate_scores"], strict=True)
                ],
            }
            for row in examples
        ]
    )


def _some_requests(inputs) -> list[int]:
    """A few requests, the unknown user's and one with the unknown item among them."""
    users, candidates = (inputs.data.examples.column(name).to_pylist() for name in ("user_id", "candidates"))
    return [0, users.index(1), next(row for row, items in enumerate(candidates) if 1 in items), len(users) - 1]


def test_the_ranker_as_pyfunc_answers_as_the_ranker(inputs, registered, tracking_uri):
    import mlflow

    registry.connect(tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{registry.RANKER}/{registered['ranker']['version']}")
    ranker = load_model(inputs.folder / "ranker")
    chosen = _some_requests(inputs)
    requests = _requests(inputs, chosen)
    for row, index in enumerate(chosen):
        with torch.inference_mode():
            encoded = ranker.encode(inputs.data.batch([index]))
            expected = {length: ranker.greedy(encoded, length)[0].tolist() for length in (LENGTH, 3)}
        ids = [candidate["item_id"] for candidate in requests["candidates"][row]]
        one = requests.iloc[[row]]
        assert served.predict(one) == [[ids[index] for index in expected[LENGTH]]]
        assert served.predict(one, params={"length": 3}) == [[ids[index] for index in expected[3]]]
    assert len(served.predict(requests)) == len(chosen)


def test_the_reward_model_as_pyfunc_answers_as_the_reward_model(inputs, registered, tracking_uri):
    import mlflow

    registry.connect(tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{registry.REWARD}/{registered['reward']['version']}")
    chosen = _some_requests(inputs)
    requests = _requests(inputs, chosen)
    lists = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [5, 4, 7, 6]])
    ids = [[candidate["item_id"] for candidate in row] for row in requests["candidates"]]
    requests["lists"] = [[[row[index] for index in one] for one in lists.tolist()] for row in ids]
    with torch.inference_mode():
        reward = random_reward(1)
        encoded = reward.encode(inputs.data.batch(chosen))
        expected = reward.reward(encoded, lists.expand(len(chosen), -1, -1))
    np.testing.assert_allclose(served.predict(requests), expected.numpy(), rtol=1e-5)


def test_a_fetched_version_is_the_model_that_was_registered(tmp_path, inputs, registered, client):
    wanted = registry.registered_identity(registered, "ranker")
    folder = registry.fetch_model(client, wanted, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"model.json", "weights.safetensors"}
    fetched, trained = load_model(folder).state_dict(), load_model(inputs.folder / "ranker").state_dict()
    assert all(torch.equal(fetched[name], trained[name]) for name in trained)


def test_one_flipped_byte_in_the_store_is_refused_by_every_way_to_load(tmp_path, inputs, registered, client):
    import mlflow

    wanted = registry.registered_identity(registered, "ranker")
    uri = f"models:/{wanted.name}/{wanted.version}"
    local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path / "copy")))
    (weights,) = local.rglob("weights.safetensors")
    _flip(weights)
    with pytest.raises(CheckpointDamaged):
        mlflow.pyfunc.load_model(str(local))
    with pytest.raises(CheckpointDamaged):
        registry.verify_weights(weights.parent, wanted)
    # Whoever changes the card along with the weights is found out by the registry's own record.
    card = json.loads((weights.parent / "model.json").read_text())
    card["weights_sha256"] = registry.file_sha256(weights)
    (weights.parent / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointDamaged, match="the registry"):
        registry.verify_weights(weights.parent, wanted)
    with pytest.raises(CheckpointDamaged):
        mlflow.pyfunc.load_model(str(local))


# ------------------------------------------------------------------------------------------------------------ figures


def test_long_curves_are_thinned_and_keep_their_ends():
    points = list(metrics_of({"loss": [[step, float(step)] for step in range(1001)]}, "ranker"))
    assert len(points) <= CURVE_POINTS + 1
    assert points[0] == ("ranker.loss", 0, 0.0)
    assert points[-1] == ("ranker.loss", 1000, 1000.0)


def test_metrics_of_nested_documents_and_what_is_no_metric():
    document = {"H@6": 0.5, "flag": True, "name": "x", "none": None, "deep": {"n": 3}, "list": [1, 2], "bins": [{}]}
    assert list(metrics_of(document, "m")) == [
        ("m.H_at_6", 0, 0.5),
        ("m.deep.n", 0, 3.0),
        ("m.list", 0, 1.0),
        ("m.list", 1, 2.0),
    ]
    assert not_finite({"a": [1.0, float("nan")], "b": {"c": float("inf"), "d": 1}}, "m") == ["m.a[1]", "m.b.c"]
