"""Benchmarks. ``python -m benchmarks`` lists them, ``python -m benchmarks parse`` runs one."""
