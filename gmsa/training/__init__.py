"""Training: losses, the one loop, protocols, checkpoints."""
