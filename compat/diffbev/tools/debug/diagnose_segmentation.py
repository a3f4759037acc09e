"""The original's diagnosis of a checkpoint, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("diffbev", "diagnose_segmentation.py")
