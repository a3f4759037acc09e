"""Settings of train.py: change them here, or give them as options of the same names."""


class Config:
    """The original's settings; `python train.py --help` says what each is in omma."""

    # 데이터
    data_root = "/path/to/nyu_v2"
    img_size = (480, 640)  # H, W

    # 모델
    layers = 7
    features = 64
    in_channels = 5
    out_channels = 1

    # 학습
    batch_size = 8
    learning_rate = 1e-4
    weight_decay = 0
    epochs = 100
    start_epoch = 0

    # Scheduler
    lr_step_size = 20
    lr_gamma = 0.5

    # Gradient
    grad_clip = 0  # 0이면 비활성화

    # 로깅 및 저장
    log_interval = 100
    val_interval = 1
    save_interval = 5
    checkpoint_dir = "./checkpoints"

    # DDP
    port = 12355
    num_workers = 4
