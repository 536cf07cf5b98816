"""Simulated lives: the reconcile core on a virtual clock, against an in-memory API server and AS, from a seed."""
