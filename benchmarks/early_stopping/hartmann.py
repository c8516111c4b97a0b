"""Learning curves made from the multi-fidelity Hartmann functions.

The functions, their four levels of correlation between low and full fidelity, and the formula of
their bias and noise are those of MF-Prior-Bench (https://github.com/automl/mf-prior-bench,
mfpbench/synthetic/hartmann), after arXiv:1703.06240. A trial is a random point of the unit cube; its
score after z of 100 tokens is the function's value at fidelity z. Full fidelity has neither bias nor
noise.
"""

import numpy as np

from sweeps.simulate.curves import Curve

# Fidelity bias and noise of each level.
LEVELS = {"good": (2.5, 2.0), "moderate": (3.0, 3.0), "bad": (3.5, 4.0), "terrible": (4.0, 5.0)}
BUDGET = 100
ALPHA_I = np.array([1.0, 1.2, 3.0, 3.2])
A_ID = {
    3: np.array([[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]]),
    6: np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    ),
}
P_ID = {
    3: 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]),
    6: 1e-4
    * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    ),
}  # fmt: skip


def curves(
    dims: int, level: str, count: int, seed: int, fidelities: tuple[int, ...]
) -> list[Curve]:
    """`count` random trials, sorted by their first coordinate, with a record at each fidelity."""
    bias, noise = LEVELS[level]
    rng = np.random.default_rng([dims, *map(ord, level), seed])
    x_ND = rng.random((count, dims))
    x_ND = x_ND[np.argsort(x_ND[:, 0])]
    short_F = 1 - np.log(fidelities) / np.log(BUDGET)
    bump_NI = np.exp(-np.einsum("id,nid->ni", A_ID[dims], (x_ND[:, None] - P_ID[dims]) ** 2))
    alpha_FI = ALPHA_I - bias * short_F[:, None] ** 2
    score_NF = -bump_NI @ alpha_FI.T + rng.normal(size=(count, len(fidelities))) * noise * short_F
    return [
        Curve(str(n), str(n), fidelities, tuple(map(float, scores)), tuple(map(float, fidelities)))
        for n, scores in enumerate(score_NF)
    ]
