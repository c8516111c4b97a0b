"""Text that a checkpoint writes, as the fields of a ledger's row; needs torch."""

from pathlib import Path

from sweeps.ledger import Row
from tinylm import checkpoint
from tinylm.generate import generate

TOKENS = 200
TEMPERATURE, TOP_P, SEED = 0.8, 0.95, 0


def sampled(file: Path) -> Row:
    """A document that the model of a checkpoint begins: text, tokens (how many), temperature, top_p
    and seed of the sampling. `CheckpointError` where the file is none."""
    trained = checkpoint.load_model(file)
    ids = list(generate(trained, "", TOKENS, TEMPERATURE, TOP_P, SEED))
    return {
        "text": trained.tokenizer.decode(ids),
        "tokens": len(ids),
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "seed": SEED,
    }
