"""The orderings that the paper claims in table 1, figures 3 and 6 and the text, where rows can test them."""

from __future__ import annotations

from .statistics import Claim

TABLE_1, FIGURE_6 = "table 1", "figure 6"
QUALITY_LOSS = ("identity_drift", "drift_sharpness")  # metrics of quality lost over time


def _orderings(better: str, worse: str, better_in: tuple[str, ...], worse_in: tuple[str, ...]) -> list[Claim]:
    """The orderings of two rows of table 1, by metric."""
    return [
        *(Claim(better, worse, metric, TABLE_1) for metric in better_in),
        *(Claim(worse, better, metric, TABLE_1) for metric in worse_in),
    ]


CLAIMS = (
    *_orderings(
        "pa-base",
        "rn-base",
        ("identity_drift", "min_color_similarity", "adherence", "drift_sharpness", "scenes", "frechet_probe"),
        ("unpredicted", "dynamic_degree"),
    ),
    *_orderings(
        "pa",
        "rw",
        ("min_color_similarity", "unpredicted", "dynamic_degree", "adherence", "frechet_probe"),
        ("identity_drift", "drift_sharpness", "scenes"),
    ),
    *_orderings(
        "pa-base",
        "fifo",
        ("identity_drift", "unpredicted", "scenes", "frechet_probe"),
        ("min_color_similarity", "dynamic_degree", "drift_sharpness"),
    ),
    *_orderings("pa-base", "chained", ("identity_drift", "scenes", "frechet_probe"), ()),
    *(Claim("pa", "no-context", metric, FIGURE_6) for metric in ("boundary_deviation", *QUALITY_LOSS)),
    *(Claim("no-context", "chunk-1", metric, FIGURE_6) for metric in (*QUALITY_LOSS, "one_object")),
)
