"""Encode frames and mux them, with everything copied from an input, into a file that plays while it grows."""
