"""The programs that ``benchmarks.challenges`` compares: each signs challenges for ``POST …/challenge/sign``."""
