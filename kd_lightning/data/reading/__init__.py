"""From the bytes of a file to checked rows; what does not fit is named by file, row and column."""
