"""What is said of a command before anything heavy is imported: its arguments, its settings, what is wrong with them."""
