"""The original's training command, by omma; `python train_simbev.py --help`."""

from omma.compat import run

if __name__ == "__main__":
    run("lss", "train_simbev.py")
