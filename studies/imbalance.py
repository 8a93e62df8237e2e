"""Notebook 05: which treatments of a class imbalance help, whoever the patients are.

The names of the treatments are those in the lesson's results.
"""

from studies import Claim, Study, ahead

MAIN = "average_precision"
NOTHING = "nothing"

STUDY = Study(
    notebook="05_imbalanced_classification",
    measures=(MAIN, "sensitivity", "balanced_accuracy", "patient_average_precision"),
    claims=(
        Claim("automatic sampling is ahead of nothing", ahead("automatic sampling", NOTHING, MAIN)),
        Claim("class weights are ahead of nothing", ahead("class weights", NOTHING, MAIN)),
        Claim(
            "element sampling with hard cases is ahead of nothing",
            ahead("element sampling", NOTHING, MAIN),
        ),
        Claim("focal loss is ahead of nothing", ahead("focal loss", NOTHING, MAIN)),
        Claim(
            "nothing with an output that starts at the prevalence is ahead of nothing as it comes",
            ahead("nothing, starts at the prevalence", NOTHING, MAIN),
        ),
    ),
)
