"""Measurements against the project's bars, on the test bed's real API server and a real NATS server: ``make bench``.

Each figure stands beside what the same machine does at most, taken in the same run: a bare Kopf handler, raw patches by the same client.
Absolute figures depend on the machine and on what else it does; the ratios do so less.
"""
