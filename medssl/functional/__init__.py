"""Pure formulas on tensors, for any number of spatial dimensions."""
