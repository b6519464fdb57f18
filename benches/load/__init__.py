"""Hawksbill beside other servers that host Python, on the machine at hand.

One worker each, pinned to one core, with the load on another, in rounds that take turns. `make bench-load`
runs it; `python -m load --help`, from `benches`, says what can be chosen.
"""
