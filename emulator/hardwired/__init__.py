"""Golden arithmetic of hardwired weights, and the model of the 16-chip system."""
