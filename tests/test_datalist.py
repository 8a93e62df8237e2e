"""A data list says what the set holds and leads nowhere else; a patient is in one split."""

import dataclasses
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from helpers import datalist
from helpers.cases import Case
from helpers.datalist import DataList, Item
from helpers.errors import CourseDataError

LAWFUL = settings(derandomize=True, deadline=None, max_examples=100)
THREE = {"train": 0.7, "validation": 0.15, "test": 0.15}
links = pytest.mark.skipif(os.name == "nt", reason="links need rights that Windows users lack")


def written(folder: Path, document: object, name: str = "dataset.json") -> Path:
    """A JSON file; text is written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def refused(path: Path, base: Path | None = None) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        datalist.load(path, base)
    return error.value


# What a list says


def test_a_data_list_says_what_the_decathlon_and_clara_put_into_it(tmp_path):
    document = {
        "name": "Spleen",
        "description": "of a made-up kind",
        "licence": "CC-BY-4.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "10": "spleen"},
        "training": [
            {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", "fold": 2},
            {"image": "imagesTr/b.nii.gz", "label": 3, "weight": 2, "patient": "P1"},
            {"image": "imagesTr/c.nii.gz", "label": [0, 2, 1], "weight": 0.25, "patient": 17},
            {"image": "imagesTr/d.nii.gz", "label": None, "weight": None, "patient": None},
        ],
        "test": ["./imagesTs/e.nii.gz", {"image": "imagesTs/f.nii.gz", "label": 0}],
        "fold_1": [{"image": "imagesTr/g.nii.gz"}],
        "authors": ["one", "two"],
    }
    found = datalist.load(written(tmp_path, document))
    train = tmp_path / "imagesTr"
    assert found.training == (
        Item(train / "a.nii.gz", mask=tmp_path / "labelsTr" / "a.nii.gz", other={"fold": 2}),
        Item(train / "b.nii.gz", label=3, weight=2.0, patient="P1"),
        Item(train / "c.nii.gz", label=(0, 2, 1), weight=0.25, patient="17"),
        Item(train / "d.nii.gz"),
    )
    assert found.validation == ()
    tests = tmp_path / "imagesTs"
    assert found.test == (Item(tests / "e.nii.gz"), Item(tests / "f.nii.gz", label=0))
    assert found.sections["fold_1"] == (Item(train / "g.nii.gz"),)
    assert (found.name, found.description) == ("Spleen", "of a made-up kind")
    assert found.modality == {0: "CT"} and found.labels == {0: "background", 10: "spleen"}
    assert found.other == {"licence": "CC-BY-4.0", "authors": ["one", "two"]}


def test_the_base_folder_is_the_lists_own_unless_another_is_given(tmp_path):
    path = written(tmp_path / "lists", {"training": [{"image": "x/a.nii"}]})
    assert datalist.load(path).training[0].image == tmp_path / "lists" / "x" / "a.nii"
    elsewhere = datalist.load(path, tmp_path / "images")
    assert elsewhere.training[0].image == tmp_path / "images" / "x" / "a.nii"


def test_a_byte_order_mark_and_letters_beyond_ascii_are_fine(tmp_path):
    document = {"name": "Größe 漢字", "training": [{"image": "bilder/Müller \U0001f9e0.nii.gz"}]}
    path = tmp_path / "list.json"
    path.write_bytes(json.dumps(document, ensure_ascii=False).encode("utf-8-sig"))
    found = datalist.load(path)
    assert found.name == "Größe 漢字"
    assert found.training[0].image.name == "Müller \U0001f9e0.nii.gz"


def test_one_modality_may_be_written_as_plain_text(tmp_path):
    document = {"modality": "MRI", "training": []}
    assert datalist.load(written(tmp_path, document)).modality == {0: "MRI"}


def test_what_leads_to_a_person_is_not_printed(tmp_path):
    item = {"image": "SECRET.nii", "label": "SECRET_2.nii", "patient": "SECRET", "note": "SECRET"}
    found = datalist.load(written(tmp_path / "SECRET", {"training": [item], "key": "SECRET"}))
    assert "SECRET" not in repr(found) + repr(found.training)


# There and back

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
files = st.lists(names, min_size=1, max_size=3).map("/".join)
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
values = st.recursive(
    plain.filter(lambda value: value not in (float("inf"), -float("inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KNOWN = {"image", "label", "weight", "patient", "training", "validation", "test"}
OF_THE_SET = {"name", "description", "modality", "labels"}
extras = st.dictionaries(st.text().filter(lambda key: key not in KNOWN), values, max_size=3)
ids = st.integers(0, 2**31 - 1)
described = st.dictionaries(st.integers(0, 99), st.text(), max_size=3)


def no_section(value: object) -> bool:
    """An extra value that the format does not take for a list of items."""
    return not (
        isinstance(value, list) and any(isinstance(one, dict) and "image" in one for one in value)
    )


@st.composite
def lists(draw) -> DataList:
    """Any lawful data list with its base at `set`."""
    base = Path("set")
    paths = draw(st.lists(files, unique=True, max_size=8))
    titles = st.sampled_from(["training", "validation", "test", "fold 1"])
    sections = defaultdict(list, training=[])
    for path in paths:
        kind = draw(st.sampled_from(["mask", "class", "classes", "none"]))
        label = {"class": ids, "classes": st.lists(ids, min_size=1, max_size=3).map(tuple)}
        item = Item(
            base / path,
            mask=base / "labels of it" / path if kind == "mask" else None,
            label=draw(label[kind]) if kind in label else None,
            weight=draw(st.none() | st.floats(0, allow_infinity=False)),
            patient=draw(st.text(max_size=5)),
            other=draw(extras),
        )
        sections[draw(titles)].append(item)
    other = {
        key: value
        for key, value in draw(extras).items()
        if key not in OF_THE_SET | {"fold 1"} and no_section(value)
    }
    about = (draw(st.text()), draw(st.text()), draw(described), draw(described))
    return DataList(base, {key: tuple(items) for key, items in sections.items()}, *about, other)


@LAWFUL
@given(lists())
def test_every_list_comes_back_equal(tmp_path_factory, whole):
    path = tmp_path_factory.getbasetemp() / "any" / "dataset.json"
    assert datalist.load(datalist.save(whole, path), whole.base) == whole


def test_every_key_of_the_file_survives_loading_and_saving(tmp_path):
    document = {
        "name": "n",
        "description": "d",
        "reference": "r",
        "release": "1.0 04/05/2018",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema"},
        "numTraining": 1,
        "nested": {"a": [1, 2.5, None, {"b": True}]},
        "training": [{"image": "a/b.nii", "label": "c/d.nii", "fold": 0, "weight": 0.5}],
        "validation": [{"image": "a/e.nii", "label": [1, 0], "patient": "P"}],
        "test": ["a/f.nii"],
    }
    path = datalist.save(datalist.load(written(tmp_path, document)), tmp_path / "new" / "x.json")
    assert json.loads(path.read_text(encoding="utf-8")) == document


def test_saved_paths_start_at_the_base_and_have_forward_slashes(tmp_path):
    item = Item(tmp_path / "a" / "b c" / "d.nii", mask=tmp_path / "e" / "f.nii")
    path = datalist.save(DataList(tmp_path, {"training": (item,)}), tmp_path / "dataset.json")
    stored = json.loads(path.read_text(encoding="utf-8"))["training"]
    assert stored == [{"image": "a/b c/d.nii", "label": "e/f.nii"}]
    assert datalist.load(path).training == (item,)


@pytest.mark.parametrize(
    "item",
    [
        {"image": "a.nii", "mask": "b.nii", "label": 1},
        {"image": "a.nii", "weight": float("nan")},
        {"image": "a.nii", "label": True},
        {"image": "a.nii", "other": {"label": 3}},
        {"image": "a.nii", "other": {"x": (1, 2)}},
        {"image": "a.nii", "other": {"x": float("nan")}},
        {"image": "../a.nii"},
    ],
    ids=str,
)
def test_a_list_that_would_not_come_back_equal_is_not_written(tmp_path, item):
    paths = {key: tmp_path / item[key] for key in ("image", "mask") if key in item}
    whole = DataList(tmp_path, {"training": (Item(**(item | paths)),)})
    with pytest.raises(ValueError):
        datalist.save(whole, tmp_path / "dataset.json")
    assert not (tmp_path / "dataset.json").exists()


def test_an_image_outside_of_the_base_folder_is_not_written(tmp_path):
    whole = DataList(tmp_path / "set", {"training": (Item(tmp_path / "other" / "a.nii"),)})
    with pytest.raises(ValueError, match="outside of the list's base folder"):
        datalist.save(whole, tmp_path / "dataset.json")


# Paths that lead elsewhere

ESCAPES = [
    "/etc/passwd",
    "//server/share/a.nii",
    "C:/a.nii",
    "C:a.nii",
    "c:\\a.nii",
    "\\\\server\\share\\a.nii",
    "\\a.nii",
    "images\\a.nii",
    "images\\..\\..\\a.nii",
    "../a.nii",
    "images/../../a.nii",
    "images/../a.nii",
    "..",
    "",
    ".",
    "./",
    "a\0.nii",
]


@pytest.mark.parametrize("text", ESCAPES, ids=repr)
@pytest.mark.parametrize("place", ["image", "mask", "test", "section"])
def test_a_path_that_could_leave_the_folder_is_refused(tmp_path, text, place):
    sections = {"training": [{"image": "a/1.nii"}, {"image": "a/2.nii", "label": "b/2.nii"}]}
    if place == "image":
        sections["training"][1]["image"] = text
    elif place == "mask":
        sections["training"][1]["label"] = text
    elif place == "test":
        sections["test"] = ["a/3.nii", text]
    else:
        sections["private name"] = [{"image": "a/3.nii"}, {"image": text}]
    error = refused(written(tmp_path, sections))
    assert error.code == "UNSAFE_PATH"
    known = {"image": "training", "mask": "training", "test": "test", "section": "key 2"}
    assert "item 2" in error.message and known[place] in error.message
    assert "private" not in error.message
    assert [file.name for file in error.files] == ["dataset.json"]


@links
@pytest.mark.parametrize("kind", ["file", "folder", "chain", "nothing", "circle"])
def test_a_link_that_leaves_the_folder_is_refused_whether_it_leads_to_something_or_not(
    tmp_path, kind
):
    outside, base = tmp_path / "outside", tmp_path / "set"
    outside.mkdir()
    base.mkdir()
    (outside / "a.nii").touch()
    if kind == "file":
        (base / "a.nii").symlink_to(outside / "a.nii")
    elif kind == "folder":
        (base / "images").symlink_to(outside, target_is_directory=True)
    elif kind == "chain":
        (base / "link").symlink_to("../outside/a.nii")
        (base / "a.nii").symlink_to("link")
    elif kind == "nothing":
        (base / "a.nii").symlink_to(outside / "no_such_file.nii")
    else:
        (base / "a.nii").symlink_to("b.nii")
        (base / "b.nii").symlink_to("a.nii")
    image = "images/a.nii" if kind == "folder" else "a.nii"
    path = written(base, {"training": [{"image": image}]})
    if kind == "circle" and sys.version_info >= (3, 13):
        assert datalist.load(path).training  # leads nowhere, so to nothing outside
    else:
        assert refused(path).code == "UNSAFE_PATH"


@links
def test_a_link_that_stays_in_the_folder_is_fine_and_so_is_a_folder_reached_by_a_link(tmp_path):
    base = tmp_path / "set"
    path = written(base, {"training": [{"image": "images/a.nii"}]})
    (base / "store").mkdir()
    (base / "store" / "a.nii").touch()
    (base / "images").symlink_to("store", target_is_directory=True)
    (tmp_path / "short").symlink_to(base, target_is_directory=True)
    assert datalist.load(path).training[0].image == base / "images" / "a.nii"
    short = tmp_path / "short"
    assert datalist.load(short / path.name).training[0].image == short / "images" / "a.nii"


def test_no_image_has_to_exist_let_alone_be_opened(tmp_path):
    path = written(tmp_path, {"training": [{"image": "no/such.nii", "label": "nor/this.nii"}]})
    assert len(datalist.load(path).training) == 1


# Lists that say something else

ITEM = {"image": "a.nii"}


def training(**wrong) -> dict:
    return {"training": [{"image": "b.nii", "label": 0}, ITEM | wrong]}


@pytest.mark.parametrize(
    "document, message",
    [
        ([], "the file is a list, expected an object"),
        ("3", "the file is a whole number, expected an object"),
        ("null", "the file is nothing, expected an object"),
        ({}, "expected a section: training, validation, test"),
        ({"training": {"image": "a.nii"}}, "training is an object, expected a list"),
        ({"test": "a.nii"}, "test is text, expected a list"),
        ({"training": ["a.nii"]}, "item 1 of training is text, expected an object"),
        ({"training": [ITEM, 3]}, "item 2 of training is a whole number, expected an object"),
        ({"test": ["a.nii", None]}, "item 2 of test is nothing, expected an object"),
        ({"P": [ITEM, 1.5]}, "item 2 of the section that is key 1 is a number, expected an obj"),
        ({"validation": [{"label": 1}]}, "the image of item 1 of validation is nothing, expected"),
        (training(image=["a", "b"]), "the image of item 2 of training is a list, expected text"),
        (training(label=True), "the label of item 2 of training is true or false, expected a mask"),
        (training(label=1.0), "the label of item 2 of training is a number, expected a mask's"),
        (training(label=-1), "the label of item 2 of training is a whole number, expected a mask"),
        (training(label=2**31), "the label of item 2 of training is a whole number"),
        (training(label={}), "the label of item 2 of training is an object, expected a mask's"),
        (training(label=[]), "the label of item 2 of training is a list, expected a mask's path"),
        (training(label=[1, True]), "the label of item 2 of training is a list, expected a mask"),
        (training(label=["x.nii"]), "the label of item 2 of training is a list, expected a mask"),
        (training(weight=-0.5), "the weight of item 2 of training is a number, expected a finite"),
        (training(weight=float("nan")), "the weight of item 2 of training is a number, expected"),
        (training(weight=float("inf")), "the weight of item 2 of training is a number, expected"),
        (training(weight=10**400), "the weight of item 2 of training is a whole number, expected"),
        (training(weight=True), "the weight of item 2 of training is true or false, expected a f"),
        (training(weight="1"), "the weight of item 2 of training is text, expected a finite num"),
        (training(patient=["P"]), "the patient of item 2 of training is a list, expected text"),
        (training(patient=True), "the patient of item 2 of training is true or false, expected"),
        (training(patient="\ud83e"), "the patient of item 2 of training holds half a character"),
        (training(image="\ud83e.nii"), "the image of item 2 of training holds half a character"),
        ({"name": 3, "training": []}, "name is a whole number, expected text"),
        ({"description": None, "training": []}, "description is nothing, expected text"),
        ({"labels": ["background"], "training": []}, "labels is a list, expected an object"),
        ({"labels": {"liver": 1}, "training": []}, "labels: expected numbers as keys"),
        ({"labels": {"1": 1}, "training": []}, "labels: expected numbers as keys and text"),
        ({"labels": {"01": "liver"}, "training": []}, "labels: expected numbers as keys"),
        ({"labels": {"-1": "liver"}, "training": []}, "labels: expected numbers as keys"),
        ({"labels": {"1.0": "liver"}, "training": []}, "labels: expected numbers as keys"),
        ({"labels": {"²": "liver"}, "training": []}, "labels: expected numbers as keys"),
        ({"modality": ["CT"], "training": []}, "modality is a list, expected an object"),
        ('{"training": [], "training": []}', "a key stands twice at the top"),
        ('{"training": [{"image": "a", "image": "b"}]}', "item 1 of training: a key stands twice"),
        ('{"labels": {"0": "a", "0": "b"}, "test": []}', "a key stands twice in an object"),
        ('{"training": [{"image": "a.nii"}', "this is no JSON in UTF-8"),
        ("", "this is no JSON in UTF-8"),
        ('{"training": [], "x": ' + "9" * 5000 + "}", "this is no JSON in UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        (
            {"training": [ITEM | {"label": "b.nii"}, {"image": "b.nii"}]},
            "an image of the list is also the mask of an item",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_list_that_says_something_else_is_refused_with_the_place_and_the_kinds(
    tmp_path, document, message
):
    error = refused(written(tmp_path, document))
    assert error.code == "DATA_LIST" and message in error.message


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_than_utf_8_is_refused(tmp_path, encoding):
    path = tmp_path / "dataset.json"
    path.write_bytes('{"name": "é", "training": []}'.encode(encoding))
    assert "no JSON in UTF-8" in refused(path).message


def test_a_file_of_hundreds_of_megabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "dataset.json"
    with open(path, "wb") as file:
        file.truncate(2**28 + 1)  # a sparse file: it takes no room on the disk
    error = refused(path)
    assert error.code == "DATA_LIST" and "256 MiB" in error.message


def test_a_list_that_is_not_there_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^no such data list$"):
        datalist.load(tmp_path / "dataset.json")


@pytest.mark.parametrize(
    "again",
    [
        {"training": [ITEM, {"image": "b.nii"}, ITEM]},
        {"training": [ITEM], "validation": [ITEM]},
        {"training": [ITEM], "test": ["./a.nii"]},
        {"training": [ITEM], "fold": [{"image": ".//a.nii"}]},
        {"training": [{"image": "x/./a.nii"}], "test": ["x/a.nii"]},
    ],
    ids=str,
)
def test_an_image_that_is_listed_twice_is_refused(tmp_path, again):
    assert refused(written(tmp_path, again)).code == "SAME_CASE"


@links
def test_an_image_that_is_listed_under_two_names_is_refused(tmp_path):
    path = written(tmp_path, {"training": [ITEM], "test": ["b.nii"]})
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nii").symlink_to("a.nii")
    assert refused(path).code == "SAME_CASE"


words = st.sampled_from(sorted(KNOWN | OF_THE_SET | {"0", "1"})) | st.text(max_size=3)
numbers = st.floats() | st.integers() | st.sampled_from([10**400, -(2**63)])
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4) | st.sampled_from(ESCAPES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words, inner, max_size=5)
        | st.fixed_dictionaries({"image": st.text(max_size=4), "label": inner, "weight": inner})
    ),
    max_leaves=20,
)


@settings(LAWFUL, max_examples=400)
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["training", "test", "labels", "modality", "more"], anything)
    )
    | anything
)
def test_whatever_stands_in_the_file_it_becomes_a_list_or_a_named_refusal(
    tmp_path_factory, document
):
    path = written(tmp_path_factory.getbasetemp() / "fuzz", document)
    try:
        found = datalist.load(path)
    except CourseDataError as error:
        code = error.code
    else:
        base, code = Path(os.path.realpath(path.parent)), ""
        for item in itertools.chain(*found.sections.values()):
            for file in filter(None, (item.image, item.mask)):
                assert Path(os.path.realpath(file)).is_relative_to(base)
    assert code in ("", "DATA_LIST", "UNSAFE_PATH", "SAME_CASE")


def test_no_refusal_quotes_the_list(tmp_path):
    secret = "Surname^Given"
    wrong = [
        {secret: [{"image": f"../{secret}"}]},
        {secret: [{"image": secret}, {"image": secret}]},
        {secret: [{"image": "a", "label": [secret]}]},
        {"training": [{"image": f"/{secret}"}]},
        {"training": [{"image": "a", "weight": secret}]},
        {"training": [], "labels": {secret: 1}},
        {"training": [], "labels": {"1": [secret]}},
        {"training": [], "name": [secret]},
        f'{{"training": [{{"{secret}": 1, "{secret}": 2}}]}}',
        f'{{"{secret}": 1, "{secret}": 2}}',
        f'{{"training": {secret}',
    ]
    for document in wrong:
        error = refused(written(tmp_path / secret, document))
        assert secret not in str(error), document


# Splits


def made(patients: dict[str, list], **more) -> list[Case]:
    """A case for each label of each patient."""
    return [
        Case(f"{patient}/{number}", None, patient=patient, label=label, **more)
        for patient, labels in patients.items()
        for number, label in enumerate(labels)
    ]


def places(cases) -> dict[str, str]:
    return {case.name: case.split for case in cases}


labels = st.none() | st.integers(0, 3) | st.tuples(st.integers(0, 1), st.integers(0, 2))
sets = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.lists(labels, min_size=1, max_size=5),
    min_size=3,
)
shares = st.sampled_from(
    [THREE, {"train": 0.8, "test": 0.2}, {"a": 0.98, "b": 0.01, "c": 0.01}, {"all of it": 1.0}]
)


def rarest(patients: dict[str, list]) -> dict[str, object]:
    """The class of each patient that fewest patients have, worked out the slow way."""
    classes = {
        patient: {
            pair
            for label in labels
            if label is not None
            for pair in enumerate(label if isinstance(label, tuple) else (label,))
        }
        for patient, labels in patients.items()
    }
    having = Counter(pair for found in classes.values() for pair in found)
    return {
        patient: min(found, key=lambda pair: (having[pair], -pair[0], -pair[1]), default=None)
        for patient, found in classes.items()
    }


@LAWFUL
@given(sets, shares, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_split_is_a_partition_by_patient_whatever_the_order(patients, fractions, seed, random):
    cases = made(patients)
    found = datalist.split(cases, fractions, seed=seed)
    assert [dataclasses.replace(case, split="all") for case in found] == cases
    sides = defaultdict(set)
    for case in found:
        sides[case.split].add(case.patient)
    assert set(sides) == set(fractions)
    assert sum(map(len, sides.values())) == len(patients)
    for one, other in itertools.combinations(sides.values(), 2):
        assert not one & other
    shuffled = random.sample(cases, len(cases))
    again = datalist.split(shuffled, fractions, seed=seed)
    assert places(again) == places(found)
    assert [case.name for case in again] == [case.name for case in shuffled]
    datalist.check_splits(found)


@LAWFUL
@given(sets, shares, st.integers(0, 3))
def test_a_class_with_enough_patients_is_in_each_split(patients, fractions, seed):
    found = datalist.split(made(patients), fractions, seed=seed)
    split = {case.patient: case.split for case in found}
    groups = defaultdict(list)
    for patient, label in rarest(patients).items():
        groups[label].append(patient)
    for label, members in groups.items():
        if label is not None and len(members) >= len(fractions):
            assert {split[patient] for patient in members} == set(fractions)


@LAWFUL
@given(st.integers(3, 400), shares, st.integers(0, 3))
def test_split_sizes_are_the_nearest_whole_numbers_of_patients(number, fractions, seed):
    cases = [Case(f"{k}", None, patient=f"P{k}") for k in range(number)]
    sizes = Counter(case.split for case in datalist.split(cases, fractions, seed=seed))
    forced = sum(share * number < 1 for share in fractions.values())
    for name, share in fractions.items():
        expected = max(1, share * number)
        assert abs(sizes[name] - expected) < 1 + forced


def test_classes_keep_their_share_in_each_split():
    # 60 positives and 140 negatives, one image each: by hand, 42/9/9 and 98/21/21.
    cases = [Case(f"{k}", None, label=int(k < 60)) for k in range(200)]
    counts = Counter((case.split, case.label) for case in datalist.split(cases, seed=1))
    assert counts == {
        ("train", 1): 42,
        ("validation", 1): 9,
        ("test", 1): 9,
        ("train", 0): 98,
        ("validation", 0): 21,
        ("test", 0): 21,
    }


def test_many_classes_keep_their_share_to_a_case_or_two():
    sizes = {0: 1000, 1: 500, 2: 300, 3: 140, 4: 60}
    cases = [Case(f"{one} {k}", None, label=one) for one in sizes for k in range(sizes[one])]
    for seed in range(3):
        found = datalist.split(cases, seed=seed)
        counts = Counter((case.split, case.label) for case in found)
        for (name, one), count in counts.items():
            assert abs(count - THREE[name] * sizes[one]) <= 2


def uneven(seed: int, number: int) -> list[Case]:
    """Patients with 1 to 15 slices; half of the slices of every sixth patient are positive."""
    random = np.random.default_rng(seed)
    patients = {}
    for k in range(number):
        ill = random.random() < 0.15
        slices = random.integers(1, 16)
        patients[f"P{k:04d}"] = [int(ill and random.random() < 0.5) for _ in range(slices)]
    return sorted(made(patients), key=lambda case: case.name)


def unevenness(sides: list[str], cases: list[Case]) -> float:
    """The largest distance from its fraction of any split's share of the positive cases."""
    positive = Counter(side for side, case in zip(sides, cases, strict=True) if case.label == 1)
    return max(abs(positive[name] / positive.total() - THREE[name]) for name in THREE)


def test_positives_are_spread_more_evenly_than_by_twenty_stratified_group_folds():
    ours, theirs = [], []
    for seed in range(5):
        cases = uneven(seed, 150)
        ours.append(unevenness([case.split for case in datalist.split(cases, seed=seed)], cases))
        folds = StratifiedGroupKFold(20, shuffle=True, random_state=seed)
        labels, groups = [case.label for case in cases], [case.patient for case in cases]
        sides = [""] * len(cases)
        for number, (_, members) in enumerate(folds.split(labels, labels, groups)):
            for member in members:
                sides[member] = ("train",) * 14 + ("validation",) * 3 + ("test",) * 3
                sides[member] = sides[member][number]
        theirs.append(unevenness(sides, cases))
    assert np.mean(ours) < np.mean(theirs) and max(ours) < 0.05


def test_three_positive_patients_among_many_are_one_in_each_split():
    for seed in range(10):
        found = datalist.split(made({f"P{k}": [int(k < 3), 0] for k in range(60)}), seed=seed)
        assert {case.split for case in found if case.label == 1} == set(THREE)
        sizes = Counter({case.patient: case.split for case in found}.values())
        assert sizes == {"train": 42, "validation": 9, "test": 9}


def test_classes_with_too_few_patients_do_not_stop_a_split():
    # Each class has one patient: there is nothing to stratify by.
    found = datalist.split(made({f"P{k}": [k] for k in range(20)}))
    assert Counter(case.split for case in found) == {"train": 14, "validation": 3, "test": 3}


def test_another_seed_gives_another_split():
    cases = made({f"P{k}": [k % 2] for k in range(40)})
    assert len({tuple(places(datalist.split(cases, seed=seed)).values()) for seed in range(5)}) == 5


def test_a_case_without_a_patient_is_one_of_its_own_even_if_a_patient_has_its_name():
    cases = [Case("A", None), Case("B", None), Case("C", None, patient="A")]
    found = datalist.split(cases, dict.fromkeys("xyz", 1 / 3))
    assert {case.split for case in found} == set("xyz")


def test_a_split_that_was_set_before_is_set_anew():
    cases = [Case(f"{k}", None, split="old") for k in range(8)]
    assert "old" not in {case.split for case in datalist.split(cases)}


@pytest.mark.parametrize(
    "fractions",
    [{}, {"a": 0.5, "b": 0.4}, {"a": 1.0, "b": 0.0}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}],
    ids=str,
)
def test_fractions_that_leave_a_split_empty_or_do_not_sum_to_one_are_the_callers_mistake(fractions):
    with pytest.raises(ValueError, match="positive and sum to 1") as error:
        datalist.split([Case(f"{k}", None) for k in range(9)], fractions)
    assert not isinstance(error.value, CourseDataError)


@pytest.mark.parametrize("patients", [{}, {"A": [0, 1]}, {"A": [0] * 9, "B": [1] * 9}], ids=len)
def test_fewer_patients_than_splits_are_refused(patients):
    with pytest.raises(CourseDataError, match=f"{len(patients)} patients for 3 splits"):
        datalist.split(made(patients))


def test_one_patient_in_two_splits_is_refused_with_counts_and_files_but_no_name():
    cases = [
        Case("1", None, (Path("a.nii"), Path("b.nii")), patient="Surname", split="train"),
        Case("2", None, (Path("c.nii"),), patient="Surname", split="test"),
        Case("3", None, (Path("d.nii"),), patient="Other", split="test"),
    ]
    with pytest.raises(CourseDataError) as error:
        datalist.check_splits(cases)
    assert error.value.code == "PATIENT_IN_TWO_SPLITS"
    assert error.value.files == (Path("a.nii"), Path("b.nii"), Path("c.nii"))
    assert error.value.message.startswith("1 of 2 patients, with 2 cases,")
    assert "Surname" not in str(error.value)
    datalist.check_splits(cases[1:])


def test_two_cases_with_one_name_are_refused_by_split_and_by_check():
    cases = [
        Case("Surname", None, (Path(f"{k}.nii"),), patient=f"P{k}", split="train") for k in range(2)
    ]
    cases.append(Case("another", None, (Path("2.nii"),)))
    for refuse in (datalist.check_splits, lambda some: datalist.split(some, {"all": 1})):
        with pytest.raises(CourseDataError, match="2 of 3 cases share their name") as error:
            refuse(cases)
        assert error.value.code == "SAME_CASE"
        assert error.value.files == (Path("0.nii"), Path("1.nii"))
        assert "Surname" not in str(error.value)


def test_cases_without_patients_may_stand_in_different_splits():
    datalist.check_splits([Case("1", None, split="train"), Case("2", None, split="test")])


# As a module


def test_items_travel_to_worker_processes():
    item = Item(Path("a.nii"), Path("b.nii"), None, 0.5, "P", {"fold": 1})
    assert pickle.loads(pickle.dumps(item)) == item  # noqa: S301


def test_reading_a_list_loads_neither_tensorflow_nor_scikit_learn():
    code = (
        "import sys, helpers.datalist, helpers.sources_decathlon;"
        "print([name for name in ('tensorflow', 'sklearn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
