"""What ``kd-report`` makes of many runs: groups, statistics, tables, plots, pages, and what is missing."""
