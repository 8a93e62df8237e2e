"""Notebook 05: which treatments of a class imbalance help, whoever the patients are.

The names of the treatments are those in the lesson's results.
"""

from studies import Claim, Study, ahead

MAIN = "average_precision"
NOTHING = "nothing"
START = "nothing, starts at the prevalence"
AUTOMATIC = "automatic sampling"
GUESSING = 0.1  # average precision; twice the prevalence

STUDY = Study(
    notebook="05_imbalanced_classification",
    measures=(MAIN, "sensitivity", "balanced_accuracy", "patient_average_precision"),
    claims=(
        Claim(
            "nothing, as it comes, does not get beyond guessing (average precision below 0.1)",
            lambda means: means.at[NOTHING, MAIN] < GUESSING,
        ),
        Claim(
            "automatic sampling is ahead of nothing by 0.15 or more",
            ahead(AUTOMATIC, NOTHING, MAIN, by=0.15),
        ),
        Claim("class weights are ahead of nothing", ahead("class weights", NOTHING, MAIN)),
        Claim("element sampling is ahead of nothing", ahead("element sampling", NOTHING, MAIN)),
        Claim("focal loss is ahead of nothing", ahead("focal loss", NOTHING, MAIN)),
        Claim(
            "nothing that starts at the prevalence is ahead of nothing as it comes",
            ahead(START, NOTHING, MAIN),
        ),
        Claim(
            "automatic sampling is ahead of nothing that starts at the prevalence",
            ahead(AUTOMATIC, START, MAIN),
        ),
        Claim(
            "class weights are behind nothing that starts at the prevalence",
            ahead(START, "class weights", MAIN),
        ),
        Claim(
            "automatic sampling is ahead of class weights", ahead(AUTOMATIC, "class weights", MAIN)
        ),
        Claim("automatic sampling is ahead of focal loss", ahead(AUTOMATIC, "focal loss", MAIN)),
        Claim(
            "automatic sampling is ahead of element sampling with hard cases",
            ahead(AUTOMATIC, "element sampling", MAIN),
        ),
        Claim(
            "focal loss is ahead of nothing that starts at the prevalence",
            ahead("focal loss", START, MAIN),
            at_least=0,
        ),
        Claim(
            "element sampling is ahead of nothing that starts at the prevalence",
            ahead("element sampling", START, MAIN),
            at_least=0,
        ),
    ),
)
