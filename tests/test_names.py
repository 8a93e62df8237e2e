"""The page for people who come from other systems names what there is, and all that they knew."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

PAGE = (Path(__file__).parents[1] / "docs" / "augmentation_names.md").read_text(encoding="utf-8")
WITH, WITHOUT = (
    [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    for part in PAGE.split("## Without an equivalent")
)
ROWS = [row for row in WITH + WITHOUT if row[0] != "theirs"]
OURS = re.compile(r"`((?:augment|crops|intensity|records|tf|volume)\.[^`]+)`")

# Every transform, crop and sampler of the systems that the course covers.
COVERED = """
    flip add_gaussian_offset add_gaussian_noise elastic_transform extract_random_example_array
    extract_class_balanced_example_array whitening normalise_zero_one normalise_one_one
    resize_image_with_crop_or_pad SlidingWindow

    CropByPosNegRatio FastCropByPosNegRatio CropByPosNegRatioLabelOnly RandCropByPosNegLabeld
    MergeBatchDims LoadNifti ConvertToChannelsFirst ScaleByResolution ScaleIntensityRange
    FastPosNegRatioCropROI RandomZoom RandomSpatialFlip ScaleShiftIntensity
    ScaleIntensityOscillation AddGaussianNoise CropFixedSizeRandomCenter SplitBasedOnLabel
    SaveAsNifti
"""


def found(name: str):
    """What a dotted name stands for."""
    first, *rest = name.split(".")
    thing = tf if first == "tf" else importlib.import_module(f"helpers.{first}")
    for part in rest:
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("code", sorted(set(OURS.findall(PAGE))))
def test_every_name_of_ours_exists_and_takes_the_arguments_shown(code):
    tree = ast.parse(code, mode="eval").body
    if not isinstance(tree, ast.Call):
        assert callable(found(code))
        return
    function = found(ast.unparse(tree.func))
    shown = {keyword.arg: None for keyword in tree.keywords}
    inspect.signature(function).bind(*tree.args, **shown)
    if all(map(_written_out, [*tree.args, *(keyword.value for keyword in tree.keywords)])):
        # What it is called with is a value that it accepts.
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
        assert function(*map(ast.literal_eval, tree.args), **values) is not None


def _written_out(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name) for part in ast.walk(node))


def test_every_row_leads_to_something_of_ours_unless_it_says_there_is_nothing():
    assert len(ROWS) > 50
    for theirs, system, here, *differs in (row for row in WITH if row in ROWS):
        assert OURS.search(here) and len(differs) == 1, theirs
        assert set(system.split(", ")) <= {"DLTK", "Clara", "MONAI"}, theirs
    assert {len(row) for row in WITHOUT} == {3}


@pytest.mark.parametrize("name", COVERED.split())
def test_every_name_that_the_course_covers_stands_in_one_row(name):
    assert [f"`{name}`" in row[0] for row in ROWS].count(True) == 1


@pytest.mark.parametrize("package", ["crops", "augment"])
def test_all_that_the_packages_offer_stands_on_the_page(package):
    module = importlib.import_module(f"helpers.{package}")
    # What these do by themselves is not something that other systems have a name for.
    inner = {"Warp", "coordinates", "draw", "flip", "once", "resample"}
    missing = [n for n in module.__all__ if f"`{package}.{n}" not in PAGE and n not in inner]
    assert missing == []


def test_no_name_of_theirs_stands_in_two_rows():
    theirs = [name for row in ROWS for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(theirs) == sorted(set(theirs))
