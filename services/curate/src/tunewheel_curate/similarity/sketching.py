"""MinHash signatures, cut into bands: two texts that share a band are worth comparing.

Candidates: Broder (1997); banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets" §3.4. The bands
of a text depend on that text alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

from tunewheel_curate.similarity.shingling import ShingleSets

PERMUTATIONS = 128
BANDS = 32
"""With 4 rows each: a pair of similarity 0.6 is found with probability 0.99, one of 0.8 nearly always."""
SEED = 17
ALGORITHM = f"bigrams50-rminhash{RMinHash.ALGORITHM_VERSION}-{PERMUTATIONS}x{BANDS}-seed{SEED}-2"
"""Names everything that a signature depends on. Signatures under another name cannot be reused."""

_ROWS_AT_ONCE = 2_048
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.array(
    [0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93], np.uint64
)


def band_keys(sets: ShingleSets) -> npt.NDArray[np.uint32]:
    """Return the key of every band of every text: (BANDS, texts)."""
    count = len(sets.offsets) - 1
    keys = np.empty((BANDS, count), np.uint32)
    for start in range(0, count, _ROWS_AT_ONCE):
        offsets = sets.offsets[start : start + _ROWS_AT_ONCE + 1]
        signatures = RMinHash.digest_matrix_from_flat_token_hashes(
            sets.values[offsets[0] : offsets[-1]] * _SPREAD,
            (offsets - offsets[0]).astype(np.uint64),
            PERMUTATIONS,
            SEED,
        )
        rows = np.array(signatures.to_rows(), dtype=np.uint64).reshape(len(offsets) - 1, BANDS, -1)
        mixed = (rows * _FACTORS).sum(axis=2, dtype=np.uint64)
        mixed ^= mixed >> np.uint64(29)
        keys[:, start : start + len(rows)] = (mixed * _SPREAD >> np.uint64(32)).T
    return keys
