"""The operator in action: on a local control plane, against a simulated cloud."""
