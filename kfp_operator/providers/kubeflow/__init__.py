"""Runs pipelines on Kubeflow Pipelines, servers 2.0 and later, over its REST API."""
