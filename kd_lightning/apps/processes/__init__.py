"""Several processes that do one job: who they are, how they agree, what becomes of them when one ends."""
