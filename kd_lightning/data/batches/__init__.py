"""Which rows make which batch, and what a batch holds."""
