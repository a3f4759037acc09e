"""Pictures from NumPy arrays; torch is never imported. Images are (H, W, 3) uint8 RGB throughout."""
