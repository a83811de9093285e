"""A test network on more than one machine: manifests for Kubernetes, a compose file, and what runs in the containers."""
