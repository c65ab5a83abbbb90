"""The optimizer of a stage, its rates, and the moving average of the weights."""
