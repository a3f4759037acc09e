"""`from src.utils import StandardizeData`, as in the original."""

from omma.systems.g2_monodepth.reference_api import StandardizeData

__all__ = ["StandardizeData"]
