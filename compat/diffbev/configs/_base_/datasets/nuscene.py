"""Data of both configs; read as data, never run."""

data_root = ""  # the nuScenes folder with img_dir/ and ann_bev_dir/; empty: the variable OMMA_DATA_DIFFBEV
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=8,
)
