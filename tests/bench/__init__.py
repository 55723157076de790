"""Benchmarks: `make bench`. Never part of the tests, and no test asserts a time."""
