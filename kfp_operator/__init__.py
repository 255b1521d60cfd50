"""Kubeflow pipelines and runs as Kubernetes resources, and what happens to them as CloudEvents on NATS."""

__version__ = "0.1.0"
