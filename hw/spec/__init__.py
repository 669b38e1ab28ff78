"""The one definition of formats, instructions, programs and machines; imports no HDL."""
