"""What a run found: scores, sizes, times; the summary, the report, the table of a sweep."""
