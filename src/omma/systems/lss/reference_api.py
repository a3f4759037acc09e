"""The original way to build a model for inference: its users' snippets run after changing one import.

>>> model = compile_model(grid_conf, data_aug_conf, outC=1)  # doctest: +SKIP
>>> model.load_state_dict(torch.load("model_best.pt")["model_state_dict"])  # doctest: +SKIP
>>> preds = model(imgs, rots, trans, intrins, post_rots, post_trans)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omma.systems.lss.convert import from_reference
from omma.systems.lss.model import LiftSplatShoot


class PublishedModel(LiftSplatShoot):
    """The network, which loads state dicts with published names."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a published state dict; dx, bx, nx, frustum and the unused classifier are left out."""
        return super().load_state_dict(from_reference(state_dict), strict=strict, assign=assign)


def compile_model(
    grid_conf: Mapping[str, Any], data_aug_conf: Mapping[str, Any], outC: int = 1
) -> PublishedModel:
    """The network for the original's two setting dicts.

    Args:
        grid_conf: xbound, ybound, zbound, dbound, each [low, high, step] in metres.
        data_aug_conf: of its keys, final_dim (height, width) decides; the others concern training data.
        outC: logit maps.
    """
    bounds = {name: tuple(grid_conf[name]) for name in ("xbound", "ybound", "zbound", "dbound")}
    height, width = data_aug_conf["final_dim"]
    return PublishedModel(**bounds, image_size=(height, width), out_channels=outC)
