"""Pure builders of the children: from a ServingDeployment to plain Kubernetes objects."""
