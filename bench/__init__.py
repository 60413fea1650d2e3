"""Measurements: run by hand or before a release, never by the test suite."""
