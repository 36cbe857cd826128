"""One fit: from a resolved configuration to a trained model in the store, and back from there."""
