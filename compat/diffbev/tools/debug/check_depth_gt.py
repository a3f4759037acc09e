"""The original's check of depth ground truth, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("diffbev", "check_depth_gt.py")
