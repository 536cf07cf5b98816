"""The Kubernetes API: LifecycleHook, and the CRD generated from its model."""
