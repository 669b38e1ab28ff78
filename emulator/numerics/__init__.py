"""Golden arithmetic of OpenLPU in NumPy: what the hardware computes, to the bit."""
