"""The command line, `ascend-serving`. Commands import their component only when they run."""
