"""What settings may hold, and what those of the stages mean: read and checked before anything heavy is imported."""
