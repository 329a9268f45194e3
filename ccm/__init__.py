"""The canonical classification model: theory and simulation of class structure in a Fisher information."""
