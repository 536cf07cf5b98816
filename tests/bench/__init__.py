"""How fast the operator is, and what it costs: on a local control plane, against a simulated cloud."""
