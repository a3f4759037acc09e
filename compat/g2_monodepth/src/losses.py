"""`from src.losses import WeightedDataLoss, WeightedMSGradLoss`, as in the original."""

from omma.systems.g2_monodepth.reference_api import WeightedDataLoss, WeightedMSGradLoss

__all__ = ["WeightedDataLoss", "WeightedMSGradLoss"]
