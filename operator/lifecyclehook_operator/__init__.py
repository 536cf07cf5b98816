"""Kubernetes operator for the lifecycle hooks of Open Telekom Cloud Auto Scaling (AS) groups."""
