"""Colours in light and in dark: contrasts as WCAG 2.2 counts them (1.4.3 and 1.4.11, level AA)."""

import re

import numpy as np
import pytest

from pipeline.runtime.explorer import read_page_file

SCHEMES = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in
           re.findall(r":root \{(.*?)\}", read_page_file("style.css").decode(), re.DOTALL)[:2]]  # fmt: skip


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "card"])
@pytest.mark.parametrize(("name", "least"), [("ink", 4.5), ("soft", 4.5), ("accent", 4.5), ("bad", 4.5), ("edge", 3)])
def test_text_and_controls_stand_out_from_their_ground(scheme, ground, name, least):
    assert contrast(scheme[name], scheme[ground]) >= least
