"""What lies in the folder of a training; both processes write there."""

FACTS_FILE = "training.json"
"""What is trained, and with which numbers; written before the first update."""
CHECKPOINTS_FOLDER = "checkpoints"
RESULT_FILE = "result.json"
LOGS_FOLDER = "logs"
LOCK_FILE = ".lock"
