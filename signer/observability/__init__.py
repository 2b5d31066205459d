"""Logging: JSON lines of the events in the catalogue, without secrets."""
