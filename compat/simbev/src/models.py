"""`from src.models import compile_model`, as in the original."""

from omma.systems.lss.reference_api import compile_model

__all__ = ["compile_model"]
