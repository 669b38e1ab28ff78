"""Bit-exact meaning of each unit's instructions, one file a unit."""
