"""The original's training command, by omma, with the settings of config.py; `python train.py --help`."""

from config import Config

from omma.compat import run

if __name__ == "__main__":
    run("g2_monodepth", "train.py", Config())
