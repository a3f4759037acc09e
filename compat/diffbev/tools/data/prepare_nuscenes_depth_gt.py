"""The original's depth ground truth, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("diffbev", "prepare_nuscenes_depth_gt.py")
