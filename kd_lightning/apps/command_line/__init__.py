"""What a command does with its arguments before anything heavy is imported, and what it says of wrong ones."""
