"""The stages of a distillation: which fits there are, who teaches what, soft targets."""
