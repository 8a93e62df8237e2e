"""What authors and continuous integration run; learners need none of it.

python -m tools.notebooks --help     edit, execute and publish the notebooks
python -m tools.course               run the whole course and measure it
python -m tools.study                repeat a lesson with other patients, and judge its claims
"""
