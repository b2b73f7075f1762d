import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flows import stir

from pipeline import assembly, export
from pipeline.aggregate import save_aggregate
from pipeline.checkpoint import Checkpoint, save_checkpoint
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_of, write_json
from pipeline.graphs import build
from pipeline.graphs.modules import DecoderAndParameters
from pipeline.health import Check, verdict
from pipeline.recipe import MEASURED
from pipeline.record import Record, write_record
from pipeline.runtime import Sampler
from pipeline.runtime.explorer.folder import RUNTIME
from pipeline.runtime.noise import standard_normal
from pipeline.vae.model import VAE
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.mixtures import Mixture

TAGS = {"data_sha256": "da7a" * 16, "params_hash": "9a3a" * 16, "git_revision": "0fb6cfb", "git_dirty": "true"}
RECORD = Record("train", "8f14e45f", {}, TAGS, {"best_epoch": 1})


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """Files of the same model, params and code, which are the same bytes, are built once: seconds each time."""
    built, make = {}, assembly.build_files

    def remembered(vae, metadata, score_samples, validation, density=None, labels=None):
        arrays = [*vae.state_dict().values(), *([] if density is None else density.mixture()), torch.tensor(validation)]
        content = b"".join(array.detach().contiguous().numpy().tobytes() for array in arrays)
        key = content, build.DecoderAndParameters, str((vae.config, metadata, score_samples, labels))
        if key not in built:
            built[key] = make(vae, metadata, score_samples, validation, density, labels)
        return dict(built[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "build_files", remembered)
        yield


@pytest.fixture
def stage(mlp, tmp_path, monkeypatch):
    """The stage's command line over a small checkpoint in a temporary folder; a list of the metrics it logs."""
    write_inputs(tmp_path, mlp.vae)
    monkeypatch.chdir(tmp_path)
    folders = ["data", "checkpoint", "evaluate", "models/export", "reports/export"]
    monkeypatch.setattr(sys, "argv", ["export", *folders])
    logged = []

    def publish(before, params, metrics, models, shown):
        logged.append(metrics)
        for folder in [models, *shown]:
            shutil.copytree(folder, tmp_path / "logged" / folder.name)
        return "; vae version 3"

    monkeypatch.setattr(export, "publish", publish)
    return logged


def write_inputs(folder, vae):
    rng = np.random.default_rng(0)
    for name in ("data", "checkpoint", "evaluate"):
        (folder / name).mkdir()
    for split in ("train", "val", "test"):
        np.save(folder / "data" / f"{split}.npy", rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
    counts = {split: {"count": 5} for split in ("train", "val", "test")}
    values = {"kind": "grey", "mean": 127.5, "standard_deviation": 73.6, "binary_fraction": 0.01}
    meta = {"shape": [1, 8, 8], "classes": None, "splits": counts, "sha256": "da7a" * 16, "values": values}
    write_json(folder / "data" / "meta.json", meta)
    save_checkpoint(folder / "checkpoint", Checkpoint(vae, "elbo", "none"))
    write_record(folder / "checkpoint", RECORD)
    (folder / "checkpoint" / "history.csv").write_text("epoch,val/elbo\n1,-3.0\n")
    evaluated = dataclasses.replace(RECORD, stage="evaluate", metrics={"test/elbo": -101.25})
    write_record(folder / "evaluate", evaluated)
    write_json(folder / "evaluate" / "health.json", verdict([]))
    set_max_parity_error(folder, 1e-4)


def set_max_parity_error(folder, value):
    set_params(folder, max_parity_error=value)


def set_params(folder, **values):
    """The repository's params with some values of export; none of the variants, for which seconds would decide."""
    text = (Path(__file__).parent.parent / "params.yaml").read_text()
    for name, value in {"min_speedup": "null", "max_parity_error": 1e-4, **values}.items():
        text = re.sub(rf"^  {name}: \S+", f"  {name}: {value}", text, flags=re.MULTILINE)
    (folder / "params.yaml").write_text(text)


def test_the_sampler_draws_from_the_aggregate_density_where_that_is_asked_for(stage, tmp_path):
    set_params(tmp_path, sample_from="aggregate", aggregate_components=2)
    save_aggregate(tmp_path / "evaluate", None)
    with pytest.raises(
        UserError, match=r"aggregate\.safetensors: holds no components; expected evaluate to have fitted"
    ):
        export.main()
    mixture = Mixture(torch.zeros(1), torch.full((1, 3), 5.0), torch.full((1, 3), -4.0))
    save_aggregate(tmp_path / "evaluate", mixture)
    export.main()
    sampler = Sampler(tmp_path / "models" / "export")
    assert sampler.metadata.aggregate_components == 1
    assert "mixture of 1 Gaussians" in (tmp_path / "models" / "export" / "card.md").read_text()


def test_the_density_of_a_prior_per_class_is_that_of_each_class(tmp_path, mlp):
    vae = model_like(mlp, condition="label", classes=("cat", "owl"), prior="per_class")
    save_aggregate(tmp_path, Mixture(torch.zeros(2, 1), torch.ones(2, 1, 3), torch.zeros(2, 1, 3)))
    assert isinstance(export.aggregate_of(tmp_path, vae), MixturePerClass)
    save_aggregate(tmp_path, Mixture(torch.zeros(1), torch.ones(1, 3), torch.zeros(1, 3)))
    with pytest.raises(UserError, match=r"log_weights has shape \[1\]; expected \[2, 1\]"):
        export.aggregate_of(tmp_path, vae)


def test_the_stage_writes_files_manifest_card_and_metrics(stage, tmp_path, mlp, capsys):
    export.main()
    folder = tmp_path / "models" / "export"
    files = ["sampler.onnx", "decoder.onnx", "encoder.onnx", "scorer.onnx"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*files, "triton", "manifest.json", "card.md"])
    manifest = read_json(folder / "manifest.json")
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: sha256_of(folder / name) for name in files
    }
    assert {name: entry["sha256"] for name, entry in manifest["other_files"].items()} == {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in (folder / "triton").glob("*/**/*.*")
    }
    metrics = read_json(tmp_path / "reports" / "export" / "metrics.json")
    assert 0 <= metrics["export/decoder_max_abs_error"] < 1e-5
    card = (folder / "card.md").read_text()
    assert "test/elbo" in card
    assert "## Variants" not in card  # none were asked for
    printed = capsys.readouterr().out
    assert printed.endswith("; vae version 3\n")
    assert printed.count("\n") == 1
    assert len(stage) == 1


def test_what_is_exported_draws_images_and_knows_its_origin(stage, tmp_path, mlp):
    export.main()
    sampler = Sampler(tmp_path / "models" / "export", "cpu")
    assert np.array_equal(sampler.sample(9, seed=4), Sampler(mlp.folder, "cpu").sample(9, seed=4))
    assert sampler.metadata.git_revision == "0fb6cfb-dirty"
    assert sampler.metadata.mlflow_run == "8f14e45f"
    assert sampler.metadata.objective == "elbo"


def test_variants_that_pay_are_listed_in_the_manifest_and_the_card(stage, tmp_path, mlp):
    set_params(tmp_path, min_speedup=1e-9, max_quality_loss=1000)
    export.main()
    folder = tmp_path / "models" / "export"
    assert list(read_json(folder / "manifest.json")["files"])[4:6] == ["sampler.int8.onnx", "decoder.int8.onnx"]
    images, plain = Sampler(folder, "cpu", variant="int8").sample(9), Sampler(mlp.folder, "cpu").sample(9)
    assert 0 < np.abs(images.astype(int) - plain).max() < 40
    variants = read_json(folder / "manifest.json")["variants"]
    assert variants["int8"].startswith("times as fast as float32: ")
    assert variants["fp16"].startswith("not written: ") or (folder / "sampler.fp16.onnx").exists()
    card = (folder / "card.md").read_text()
    assert "| `sampler.int8.onnx` | the sampler in int8, for the CPU |" in card
    assert "## Variants" in card
    metrics = read_json(tmp_path / "reports" / "export" / "metrics.json")
    assert {"export/int8_sample64_speedup", "export/int8_psnr_db", "export/int8_nll_loss"} < metrics.keys()
    assert stage == [metrics]


def test_the_scorer_is_measured_as_a_detector(stage, tmp_path):
    export.main()
    metrics = read_json(tmp_path / "reports" / "export" / "metrics.json")
    assert {"export/auroc_defects", "export/auroc_defects_error_map", "export/defects_located"} < metrics.keys()
    of_export = {name for name in MEASURED if name.startswith("export/")}
    assert of_export - metrics.keys() == {"export/auroc_held_out"}
    assert "export/auroc_held_out" not in metrics
    assert "held-out labels" not in (tmp_path / "models" / "export" / "card.md").read_text()


def test_where_labels_were_held_out_the_card_says_how_well_they_are_found(stage, tmp_path):
    hold_out(tmp_path / "data", "eel")
    export.main()
    metrics = read_json(tmp_path / "reports" / "export" / "metrics.json")
    card = (tmp_path / "models" / "export" / "card.md").read_text()
    measured = f"{metrics['export/auroc_held_out']:.3f} ± {metrics['export/auroc_held_out_stderr']:.3f}"
    assert f"| 7 images of held-out labels: eel | 5 test images | `score` | {measured} |" in card
    assert stage == [metrics]


def test_a_conditional_model_is_exported_where_a_label_was_held_out(stage, tmp_path, mlp):
    """Of three classes in the data, the second was held out; so the model knows two, and numbers them without it."""
    hold_out(tmp_path / "data", "eel")
    meta = read_json(tmp_path / "data" / "meta.json")
    write_json(tmp_path / "data" / "meta.json", meta | {"classes": ["cat", "eel", "owl"]})
    for split in ("train", "val", "test"):
        np.save(tmp_path / "data" / f"{split}_labels.npy", np.array([0, 2, 0, 2, 2]))
    vae = model_like(mlp, condition="label", classes=("cat", "owl"), prior="per_class")
    with torch.no_grad():
        vae.decoder.class_bias.weight.mul_(20)
        vae.prior.mu.add_(torch.tensor([[-1.0], [1.0]]))
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(vae, "elbo", "none"))
    export.main()
    folder = tmp_path / "models" / "export"
    sampler = Sampler(folder, "cpu")
    assert sampler.labels == ("cat", "owl")
    owls = sampler.latents(200, label="owl")
    assert np.abs(owls.mean(0) - vae.prior.mu[1].detach().numpy()).max() < 0.5
    z = torch.from_numpy(owls[:9])
    with torch.no_grad():
        expected = vae.mean(z, torch.ones(9, dtype=torch.int64)).permute(0, 2, 3, 1).numpy()
    assert np.abs(sampler.sample(9, label="owl") - np.rint(expected * 255)).max() <= 1
    card = (folder / "card.md").read_text()
    assert "| 7 images of held-out labels: eel | 5 test images |" in card
    assert "a Gaussian prior for each class" in card


def test_a_flow_as_prior_is_exported_and_drawn_from(stage, tmp_path, mlp):
    vae = model_like(mlp, prior="flow", posterior="iaf", flow_layers=3, flow_hidden=(7, 6))
    stir(vae.prior)
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(vae, "elbo", "none"))
    export.main()
    folder = tmp_path / "models" / "export"
    sampler = Sampler(folder, "cpu")
    eps = torch.from_numpy(standard_normal(np.full(20, 3), np.arange(20), vae.config.latent_dim))
    with torch.no_grad():
        expected = vae.prior.from_noise(eps).numpy()
    np.testing.assert_allclose(sampler.latents(20, seed=3), expected, atol=1e-5)
    assert np.abs(expected - eps.numpy()).max() > 0.5
    assert (sampler.metadata.prior, sampler.metadata.posterior) == ("flow", "iaf")
    card = (folder / "card.md").read_text()
    assert "a flow as prior" in card
    assert "a Gaussian that an inverse autoregressive flow moves as posterior" in card


@pytest.mark.parametrize(("objective", "posterior"), [("elbo", "diagonal"), ("autoencoder", None)])
def test_the_files_name_the_posterior_where_there_is_one(mlp, objective, posterior):
    assert export.posterior_of(Checkpoint(mlp.vae, objective, "none")) == posterior


def model_like(exported, **changes):
    """A model of the same network with another configuration, in evaluation mode."""
    torch.manual_seed(0)
    return VAE(dataclasses.replace(exported.vae.config, **changes)).eval()


def hold_out(folder, label):
    """Give the prepared folder labels, and seven images that were held out."""
    np.save(folder / "held_out.npy", np.random.default_rng(1).integers(0, 256, (7, 1, 8, 8), dtype=np.uint8))
    meta = read_json(folder / "meta.json")
    meta["splits"]["held_out"] = {"count": 7, "class_counts": [0, 7]}
    for split, part in meta["splits"].items():
        np.save(folder / f"{split}_labels.npy", np.zeros(part["count"], np.int64))
    write_json(folder / "meta.json", meta | {"classes": ["cat", label]})


def test_the_run_holds_the_explorer_as_a_folder_of_files(stage, tmp_path):
    export.main()
    logged = tmp_path / "logged" / "explorer"
    assert (logged / "index.html").is_file()
    assert (logged / "sampler.onnx").read_bytes() == (tmp_path / "models" / "export" / "sampler.onnx").read_bytes()
    assert not (logged / RUNTIME[1]).exists()
    assert RUNTIME[1] in (logged / "README.txt").read_text()


def test_the_explorer_takes_onnxruntime_web_along_where_it_is_installed(stage, tmp_path, monkeypatch):
    dist = tmp_path / "repository" / "examples/web/node_modules/onnxruntime-web/dist"
    dist.mkdir(parents=True)
    for name in RUNTIME:
        (dist / name).write_text(name)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    export.main()
    for name in RUNTIME:
        assert (tmp_path / "logged" / "explorer" / name).read_text() == name


def test_files_that_differ_from_the_model_are_not_written(stage, tmp_path, monkeypatch):
    class Wrong(DecoderAndParameters):
        def forward(self, z):
            x, parameters = super().forward(z)
            return torch.flip(x, [2]), parameters

    monkeypatch.setattr(build, "DecoderAndParameters", Wrong)
    with pytest.raises(UserError, match=r"decoder_max_abs_error is .*; expected at most 0.0001"):
        export.main()
    assert_nothing_was_written(tmp_path, stage)


def test_the_limit_is_the_one_in_params(stage, tmp_path):
    set_max_parity_error(tmp_path, 1e-12)
    with pytest.raises(UserError, match=r"expected at most 1e-12 \(params.yaml: export.max_parity_error\)"):
        export.main()
    assert_nothing_was_written(tmp_path, stage)


def test_a_failure_at_the_end_leaves_what_was_there_before(stage, tmp_path, monkeypatch):
    (tmp_path / "models" / "export").mkdir(parents=True)
    (tmp_path / "models" / "export" / "manifest.json").touch()

    def fail(*arguments):
        raise UserError("the store is gone")

    monkeypatch.setattr(export, "publish", fail)
    with pytest.raises(UserError, match="the store is gone"):
        export.main()
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["export", "manifest.json"]
    assert list((tmp_path / "reports").iterdir()) == []


def test_an_unhealthy_model_is_refused_unless_told_otherwise(stage, tmp_path):
    collapsed = Check(
        "collapsed_units", 0.0, 0.05, False, "0 of 3 latent dimensions are active", "a smaller train.beta"
    )
    write_json(tmp_path / "evaluate" / "health.json", verdict([collapsed]))
    expected = (
        r"^evaluate/health.json: 0 of 3 latent dimensions are active \(try a smaller train.beta\); "
        "export.allow_unhealthy: true exports the model all the same$"
    )
    with pytest.raises(UserError, match=expected):
        export.main()
    assert_nothing_was_written(tmp_path, stage)
    set_params(tmp_path, allow_unhealthy="true")
    export.main()
    assert (tmp_path / "models" / "export" / "sampler.onnx").exists()


def test_a_record_without_origin_is_refused(stage, tmp_path):
    write_record(tmp_path / "checkpoint", dataclasses.replace(RECORD, tags={}))
    with pytest.raises(UserError, match="lacks the tag 'data_sha256'"):
        export.main()
    assert_nothing_was_written(tmp_path, stage)


def assert_nothing_was_written(folder, logged):
    assert not (folder / "models").exists()
    assert not (folder / "reports").exists()
    assert logged == []
