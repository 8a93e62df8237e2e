"""What `python -m helpers convert` does; `report` and `terminal` serve it.

A command imports what it works with when it runs: help has to come at once.
"""
