"""Processing elements behind one interface and one pipeline cut, and the arrays around them."""
