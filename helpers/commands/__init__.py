"""What `python -m helpers` can do, a module for each command; `report` and `terminal` serve them.

A command imports what it works with when it runs: help has to come at once.
"""
