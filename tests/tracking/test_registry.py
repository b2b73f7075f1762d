import dataclasses
import json

import pytest

from pipeline.champion import Figure, at_most
from pipeline.errors import UserError
from pipeline.record import Record
from pipeline.tracking.models import log_sampler
from pipeline.tracking.registry import point_alias, register

FIGURE = Figure("nll_iw", 103.5, "bc87", "bernoulli", "binarised, seed 0", "5000")
PASSED, FAILED = at_most("nll", 103.5, None), at_most("failed_checks", 1.0, 0.0)


@pytest.fixture
def export(store, trained, mlp):
    """Register the sampler as an export with some value does; what was registered."""
    model_id = log_sampler(trained.run_id, mlp.folder / "sampler.onnx")

    def run(value, *gates, **changes):
        figure = dataclasses.replace(FIGURE, value=value, **changes)
        registration = register("vae", trained.run_id, model_id, figure, gates or [PASSED])
        point_alias(registration)
        return registration

    return run


def aliases(store):
    return {alias: str(version) for alias, version in store.get_registered_model("vae").aliases.items()}


def test_the_better_version_is_champion_and_the_others_challenger(store, export):
    assert export(103.5).decision.alias == "champion"
    assert aliases(store) == {"champion": "1"}
    assert export(104.0).decision.alias == "challenger"
    assert aliases(store) == {"champion": "1", "challenger": "2"}
    assert export(103.5).decision.reason == "nll_iw 103.5, no better than 103.5 of version 1"
    assert aliases(store) == {"champion": "1", "challenger": "3"}
    assert export(101.0).decision.reason == "nll_iw 101, better than 103.5 of version 1"
    assert aliases(store) == {"champion": "4", "challenger": "3"}


def test_a_failed_gate_leaves_the_name_without_a_champion(store, export):
    export(90.0, PASSED, FAILED)
    assert aliases(store) == {"challenger": "1"}
    export(104.0)
    assert aliases(store) == {"challenger": "1", "champion": "2"}


def test_a_model_of_other_data_leaves_the_champion(store, export):
    export(103.5)
    decision = export(1.0, data_sha256="77aa").decision
    assert decision.reason == "not comparable with the champion, version 1: its data_sha256 is bc87, here 77aa"
    assert aliases(store)["champion"] == "1"


def test_nothing_that_is_served_changes_before_the_alias_is_pointed(store, trained, mlp):
    model_id = log_sampler(trained.run_id, mlp.folder / "sampler.onnx")
    register("vae", trained.run_id, model_id, FIGURE, [PASSED])
    assert aliases(store) == {}


def test_a_champion_that_a_person_chose_is_the_one_to_beat(store, export):
    export(103.5)
    export(104.0)
    store.set_registered_model_alias("vae", "champion", "2")
    assert export(103.9).decision.alias == "champion"


def test_a_champion_that_something_else_registered_keeps_its_place(store, export):
    export(103.5)
    for tag in FIGURE.to_tags():
        store.delete_model_version_tag("vae", "1", tag)
    assert export(1.0).decision.reason == "the champion, version 1, carries no figure to compare with"


def test_a_version_says_what_it_is_and_why(store, trained, export):
    export(103.5)
    export(104.25, PASSED, FAILED)
    version = store.get_model_version("vae", "2")
    assert version.run_id == trained.run_id
    assert version.tags == {**FIGURE.to_tags(), "value": "104.25"}
    assert version.description.startswith("became challenger: gate failed_checks: 1, limit 0\n")
    assert "| nll | 103.5 | - | yes |\n| failed_checks | 1 | 0 | **no** |" in version.description
    assert "extra_files" in store.get_registered_model("vae").description


def test_the_run_holds_the_decision_and_its_figures(store, trained, export, tmp_path):
    export(103.5)
    registration = export(104.25, PASSED, PASSED, FAILED)
    record = registration.in_record(Record("export", trained.run_id, {}, {"a": "b"}, {"export/sample64_ms": 1.5}))
    assert record.tags == {
        "a": "b",
        "registry.model": "vae",
        "registry.version": "2",
        "registry.alias": "challenger",
        "registry.reason": "gate failed_checks: 1, limit 0",
    }
    assert record.metrics == {
        "export/sample64_ms": 1.5,
        "registry/candidate": 104.25,
        "registry/champion": 103.5,
        "registry/failed_gates": 1,
    }
    path = store.download_artifacts(trained.run_id, "export/registry.json", str(tmp_path))
    with open(path, encoding="utf-8") as file:
        figures = json.load(file)
    assert (figures["version"], figures["alias"]) == ("2", "challenger")
    assert figures["candidate"] == dataclasses.asdict(dataclasses.replace(FIGURE, value=104.25))
    assert figures["champion_before"] == {"version": "1", "figure": dataclasses.asdict(FIGURE)}
    assert figures["gates"][2] == {"name": "failed_checks", "value": 1.0, "limit": 0.0, "passed": False}


def test_the_stage_line_names_the_version_the_alias_and_the_reason(export):
    assert str(export(103.5)) == "vae version 1 is champion (nll_iw 103.5; there was no champion)"


def test_a_deleted_champion_leaves_its_place_to_the_next(store, export):
    export(103.5)
    store.delete_model_version("vae", "1")
    assert export(104.0).decision.alias == "champion"


def test_registering_says_nothing_of_its_own(export, capfd):
    capfd.readouterr()
    export(103.5)
    assert capfd.readouterr() == ("", "")


def test_what_the_store_refuses_is_told_in_one_line(store, trained):
    with pytest.raises(UserError, match="^MLflow store sqlite:"):
        register("vae", trained.run_id, "m-0", FIGURE, [PASSED])
