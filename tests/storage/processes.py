"""Real processes for the tests to kill; started in a moment, since the imports are done before."""

import multiprocessing

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["pytest", "storage.studies", "storage.telemetry", "storage.csv_file"])
