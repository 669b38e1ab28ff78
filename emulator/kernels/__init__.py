"""The units once more, compiled: whole instructions on plain arrays, to the same bits as `emulator.units`."""
