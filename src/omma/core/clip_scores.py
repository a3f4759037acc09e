"""CLIP-S and RefCLIP-S of captions from embeddings of one CLIP-like encoder; N samples of D values.

The published scores are 2.5 max(cos, 0), and the harmonic mean of that with the best reference's cosine;
`reference=True` gives the plain cosines that PanoLLaVA's reports hold under these names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE = 2.5


def clip_s(image: Tensor, caption: Tensor, *, reference: bool = False) -> Tensor:
    """(N,) float64 agreement of captions with pictures.

    Args:
        image: (N, D) pictures, or (N, V, D) views of panoramas, whose scores are averaged.
        caption: (N, D).
        reference: plain cosines.
    """
    views = image[:, None] if image.ndim == 2 else image
    cosine = F.cosine_similarity(views.double(), caption.double()[:, None], dim=-1)
    return (cosine if reference else SCALE * cosine.clamp(min=0)).mean(1)


def ref_clip_s(
    image: Tensor, caption: Tensor, references: Sequence[Tensor], *, reference: bool = False
) -> Tensor:
    """(N,) float64 agreement of captions with pictures and references.

    Args:
        image: (N, D) or (N, V, D).
        caption: (N, D).
        references: N times (R, D), R at least 1.
        reference: plain cosines with the first reference; pictures play no part.
    """
    cosines = [
        F.cosine_similarity(own.double()[None], refs.double(), dim=-1)
        for own, refs in zip(caption, references, strict=True)
    ]
    if reference:
        return torch.stack([cosine[0] for cosine in cosines])
    best = torch.stack([cosine.max() for cosine in cosines]).clamp(min=0)
    seen = clip_s(image, caption)
    return 2 * seen * best / (seen + best).clamp(min=1e-12)
