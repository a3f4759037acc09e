"""`from src.networks import UNet`, as in the original."""

from omma.systems.g2_monodepth.reference_api import UNet

__all__ = ["UNet"]
