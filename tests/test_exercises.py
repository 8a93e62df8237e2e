"""A learner who knows every answer passes every check, in a fresh kernel, to the last cell."""

import pytest

from tools import cells, course, study_lesson

# Trained in full when the notebooks run as shipped; here it is the answers that count, and that a
# lesson ends with fewer steps, as a teacher may want it.
SHORTER = {
    "05_imbalanced_classification": {"STEPS": 40},
    "06_segmentation_with_deeplab": {"EPOCHS": 1, "CT_EPOCHS": 1},
}


@pytest.mark.parametrize("path", cells.notebook_paths(), ids=lambda path: path.stem)
def test_the_solved_notebook_passes_all_its_checks(path, tmp_path, record_property):
    solved = cells.solved(cells.read(path))
    solved = study_lesson.with_parameters(solved, SHORTER.get(path.stem, {}))
    run = course.run(solved, path.stem, tmp_path / path.name, strict=True)
    record_property("checks", (run.checks_passed, run.checks_total))
    assert not run.problems, "\n" + "\n".join(run.problems)
    assert run.checks_passed == run.checks_total > 0
