"""Measurements of edge: micro-benchmarks, a load generator, profiles, and a comparison with other proxies.

Everything is reached through `python -m bench`; README.md says what each command measures and how.
"""
