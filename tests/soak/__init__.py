"""Chaos on a real API server against a simulated cloud, and whether the operator has got over it in the end."""
