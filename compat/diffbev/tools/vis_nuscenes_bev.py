"""The original's pictures of one or two checkpoints, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("diffbev", "vis_nuscenes_bev.py")
