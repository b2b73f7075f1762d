"""Rows of the MLflow store: the only place that imports mlflow.

One run per pipeline execution: `train` opens it, `evaluate` and `export` join it. A stage that already stands in
the row, because it ran before over the same training, opens a row of its own that carries all that came before
it and names the run that it continues; so a row never mixes two settings. A run that the store does not know
(DVC restored the training from its cache) is laid again from the records that the stages left on disk.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # they are read when mlflow is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is away is away: minutes of waiting
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # would hold the training up
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for _name in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they log tracebacks of a store that is locked or away
