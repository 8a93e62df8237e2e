"""The pages for people who come from other systems name what there is, and all that they knew."""

import ast
import importlib
import inspect
import re

import pytest

from tools.cells import ROOT, read

tf = pytest.importorskip("tensorflow")

PAGE, PIPELINES = (
    (ROOT / f"docs/{name}_names.md").read_text(encoding="utf-8")
    for name in ("augmentation", "pipeline")
)


def table(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


WITH, WITHOUT = map(table, PAGE.split("## Without an equivalent"))
ROWS = [row for row in WITH + WITHOUT if row[0] != "theirs"]
OF_PIPELINES = [row for row in table(PIPELINES) if row[0] != "theirs"]
MODULES = (
    "augment|crops|intensity|labels|lists|memory|pipeline|predict|records|sampling|smart_cache|tf"
    "|volume"
)
OURS = re.compile(rf"`((?:{MODULES})\.[^`]+)`")

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

# Of TorchIO 1.2.1: its transforms (but the deterministic twins of random ones), samplers and
# loaders. Of medicai 0.0.4: `medicai.transforms`. Read from their source.
TORCHIO = """
    RandomAffine RandomAffineElasticDeformation RandomAnisotropy RandomBiasField RandomBlur
    RandomElasticDeformation RandomFlip RandomGamma RandomGhosting RandomLabelsToImage RandomMotion
    RandomNoise RandomSpike RandomSwap Clamp Compose Crop CropOrPad HistogramStandardization
    KeepLargestComponent OneHot Pad RemapLabels RemoveLabels Resample RescaleIntensity Resize
    SequentialLabels ToCanonical ToOrientation ZNormalization GridAggregator GridSampler LabelMap
    LabelSampler Queue ScalarImage Subject SubjectsDataset SubjectsLoader UniformSampler
    WeightedSampler
"""
MEDICAI = """
    Compose CropForeground NormalizeIntensity Orientation RandomCropByPosNegLabel RandomCutOut
    RandomFlip RandomRotate RandomRotate90 RandomShiftIntensity RandomSpatialCrop Resize Rotate90
    ScaleIntensityRange SignalFillEmpty SlidingWindowInference SpatialCrop Spacing

    RandCropByPosNegLabel RandFlip RandRotate90 RandShiftIntensity RandSpatialCrop
"""

# Every argument of Clara Train's image pipelines, and those of its SmartCache.
ARGUMENTS = """
    data_list_file_path data_file_base_dir data_list_key output_crop_size transforms
    output_data_format output_data_dims output_image_channels output_image_dtype
    output_label_format output_batch_size batched_by_transforms num_workers prefetch_size shuffle
    repeat duplicate_count extra_inputs batch_transforms items_per_category category_weights
    num_cache_objects replace_percent
"""


def found(name: str):
    """What a dotted name stands for."""
    first, *rest = name.split(".")
    thing = tf if first == "tf" else importlib.import_module(f"helpers.{first}")
    for part in rest:
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("code", sorted(set(OURS.findall(PAGE + PIPELINES))))
def test_every_name_of_ours_exists_and_takes_the_arguments_shown(code):
    tree = ast.parse(code, mode="eval").body
    if not isinstance(tree, ast.Call):
        thing = found(code)
        assert callable(thing) or isinstance(thing, property)
        return
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = found(ast.unparse(call.func))
        shown = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(function).bind(*call.args, **shown)
    if all(map(_written_out, [*tree.args, *(keyword.value for keyword in tree.keywords)])):
        # What it is called with is a value that it accepts.
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
        assert (
            found(ast.unparse(tree.func))(*map(ast.literal_eval, tree.args), **values) is not None
        )


def test_what_the_lessons_name_in_their_text_exists():
    packages = "augment|crops|deeplab|evaluation|labels|memory|pipeline|sampling|stage|timing"
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        for name in re.findall(rf"`(?:helpers\.(?=\w)|(?=(?:{packages})\.))([\w.]+)", text):
            assert found(name), (path.name, name)


def _written_out(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name) for part in ast.walk(node))


def test_every_row_leads_to_something_of_ours_unless_it_says_there_is_nothing():
    assert len(ROWS) > 50
    for theirs, system, here, *differs in (row for row in WITH if row in ROWS):
        assert OURS.search(here) and len(differs) == 1, theirs
        assert set(system.split(", ")) <= {*SYSTEMS, "DLTK", "Clara", "MONAI"}, theirs
    assert {len(row) for row in WITHOUT} == {3}
    assert len(OF_PIPELINES) > 25
    for theirs, here, *differs in OF_PIPELINES:
        assert OURS.search(here) and len(differs) == 1, theirs


SYSTEMS = {"TorchIO": set(TORCHIO.split()), "medicai": set(MEDICAI.split())}


@pytest.mark.parametrize("system", SYSTEMS)
def test_names_of_torchio_and_medicai_are_theirs_and_each_stands_in_a_row_of_theirs(system):
    """A row of theirs alone names nothing else: names are read, not guessed."""
    named = set()
    for theirs, systems, *_ in ROWS:
        names, known = set(re.findall(r"`(\w+)`", theirs)), systems.split(", ")
        named |= names if system in known else set()
        if system in known and set(known) <= set(SYSTEMS):
            assert names <= set().union(*(SYSTEMS[one] for one in known)), theirs
    assert SYSTEMS[system] <= named


@pytest.mark.parametrize("name", COVERED.split())
def test_every_name_that_the_course_covers_stands_in_one_row(name):
    assert [f"`{name}`" in row[0] for row in ROWS].count(True) == 1


@pytest.mark.parametrize("name", ARGUMENTS.split())
def test_every_argument_of_their_pipelines_stands_in_one_row(name):
    assert [f"`{name}`" in row[0] for row in OF_PIPELINES].count(True) == 1


@pytest.mark.parametrize("package", ["crops", "augment"])
def test_all_that_the_packages_offer_stands_on_the_page(package):
    module = importlib.import_module(f"helpers.{package}")
    # What these do by themselves is not something that other systems have a name for.
    inner = {"Warp", "coordinates", "copied", "draw", "flip", "from_memory", "once", "resample"}
    inner |= {"runs_of", "starts"}
    missing = [n for n in module.__all__ if f"`{package}.{n}" not in PAGE and n not in inner]
    assert missing == []


@pytest.mark.parametrize("package", ["pipeline", "smart_cache"])
def test_all_that_is_for_pipelines_stands_on_their_page(package):
    module = importlib.import_module(f"helpers.{package}")
    inner = {"Swap"}  # what a swap returns
    assert [
        n for n in module.__all__ if f"`{package}.{n}" not in PIPELINES and n not in inner
    ] == []


@pytest.mark.parametrize("rows", [ROWS, OF_PIPELINES], ids=["augmentation", "pipeline"])
def test_no_name_of_theirs_stands_in_two_rows(rows):
    # The two kinds of sampling are values of one argument.
    theirs = [name for row in rows for name in re.findall(r"`(\w+)`", row[0]) if name != "sampling"]
    assert sorted(theirs) == sorted(set(theirs))
