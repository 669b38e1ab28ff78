"""Golden twins of the processing elements."""
