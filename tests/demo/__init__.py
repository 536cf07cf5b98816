"""The operator at work: on a local control plane, against a simulated cloud."""
