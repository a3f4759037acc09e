"""omma: train, check, evaluate, compare and export spatial-perception systems behind one command."""

__version__ = "0.1.0"
