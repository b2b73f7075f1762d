import json
from pathlib import Path
from typing import get_args

import pytest

from pipeline.direction import more_is_better
from pipeline.params.sections import ExportParams
from pipeline.recipe import MEASURED

REPORTS = Path(__file__).parents[1] / "reports"
REPORTED = {name for file in REPORTS.glob("*/metrics.json") for name in json.loads(file.read_text())}


@pytest.mark.parametrize("metric", sorted(REPORTED | {*MEASURED}))
def test_every_metric_that_is_reported_has_a_direction(metric):
    assert more_is_better(metric) is not None


def test_both_stages_that_measure_are_among_the_reports():
    assert {name.partition("/")[0] for name in REPORTED} == {"test", "export"}


def test_every_metric_that_can_decide_on_the_champion_has_a_direction():
    metrics = get_args(ExportParams.model_fields["champion_metric"].annotation)
    assert {metric: more_is_better(metric) for metric in metrics} == {
        "nll_iw": False,
        "elbo": True,
        "bits_per_dim": False,
    }


@pytest.mark.parametrize(
    "metric",
    [
        "test/elbo",
        "val/recon",
        "test/active_units",
        "test/mutual_information_nce",
        "test/mutual_information_fitted",
        "test/memorisation_ratio",
        "test/precision_classifier",
        "export/auroc_defects",
        "export/auroc_defects_error_map",
        "export/int8_psnr_db",
        "export/int8_sample64_speedup",
        "images_per_second",
    ],
)
def test_of_these_more_is_better(metric):
    assert more_is_better(metric) is True


@pytest.mark.parametrize(
    "metric",
    [
        "test/nll_iw5000",
        "test/nll_ais500",
        "val/kl_group_1",
        "test/bits_per_dim",
        "test/fid_classifier",
        "test/kid_classifier",
        "test/memorisation_copies",
        "test/memorisation_test_copies",
        "test/train_test_gap",
        "test/amortisation_gap",
        "test/failed_checks",
        "export/auroc_defects_stderr",
        "export/decoder_max_abs_error",
        "export/int8_kid_to_fp32",
        "export/sample64_ms",
        "export/sampler_max_grey_levels",
    ],
)
def test_of_these_less_is_better(metric):
    assert more_is_better(metric) is False


def test_of_a_name_that_says_nothing_no_direction_is_claimed():
    assert more_is_better("test/kilometres") is None
