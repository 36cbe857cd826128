"""A teacher's logits on disk, by example id; of several teachers, joined."""
