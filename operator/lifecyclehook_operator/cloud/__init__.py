"""The cloud: the AS API, IAM, credentials and errors. Nothing here knows Kubernetes."""
