"""DiffBEV and its baselines: bird's-eye-view segmentation from one camera."""
